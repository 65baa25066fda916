"""What is told of a trained check, as a page for people; the same figures lie beside it as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Card = Mapping[str, Any]


def page(card: Card) -> str:
    """The card as Markdown."""
    encoder, method, data, error = (
        card[name] for name in ("encoder", "method", "data", "calibration_error")
    )
    return f"""# {card["name"]}

A picture check: which of {", ".join(card["labels"])} a picture is. A linear probe over the
{encoder["width"]} numbers that the frozen encoder `{encoder["name"]}` (build {encoder["build"]},
{encoder["kind"]}) makes of a picture. Trained by `calotype safety train`, seed {card["seed"]}; the
same pictures, encoder, seed and machine make the same bytes.

Logistic regression, labels weighed evenly, C {method["strength"]:g}; a temperature
({method["temperature"]:.3f}) and a bias a label were fitted on the calibration part. Expected
calibration error: {error["measured"]:.3f} on the measured part ({error["before"]:.3f} on the
calibration part before). Chances are for a mix of labels as in these pictures.

## Pictures

{data["pictures"]:,} pictures; {data["copies"]:,} exact copies were left out. Near copies (PDQ,
within 31 bits in any position) are in one part: there are {data["groups"]:,} groups.
SHA-256 over labels and files: `{data["sha256"]}`.

| label | learnt | calibration | measured |
|---|---|---|---|
{_counts(data["labels"])}

## Thresholds

Set by the harmless pictures ({", ".join(card["harmless"])}) of the calibration part: so that
Wilson's 95 % interval of the share refused is under {card["false_positives"]:.2%}, or so that none
is refused, where they are too few to show that. There the check says 0.5: chances are told by their
odds against the threshold's.

| label | chance |
|---|---|
{_thresholds(card["thresholds"])}

## Figures

Of the measured part, with 95 % intervals by Wilson. Right: the likeliest label is the picture's.
Found: of pictures with a bad label, past that label's threshold. Refused: of harmless ones, past
any threshold.

| pictures | | right | found | refused |
|---|---|---|---|---|
{_figures(card["figures"])}

## Limits

It knows the pictures it learnt from and what is like them to its encoder, and nothing of what is
meant. Labels are as good as the people who gave them. Its figures are of pictures like these: try
it beside the check in force before it takes its place.

Warnings:

{_warnings(card["warnings"])}
"""


def _counts(labels: Mapping[str, Mapping[str, int]]) -> str:
    return "\n".join(
        f"| {label} | {counts['learnt']} | {counts['calibration']} | {counts['measured']} |"
        for label, counts in labels.items()
    )


def _thresholds(chances: Mapping[str, float]) -> str:
    return "\n".join(f"| {label} | {chance:.4f} |" for label, chance in chances.items())


def _figures(figures: Mapping[str, Any]) -> str:
    rows = [("all", figures["all"])]
    for name, values in figures.items():
        if name != "all":
            rows += [(f"{name}: {value}", row) for value, row in values.items()]
    return "\n".join(
        f"| {name} | {row['pictures']} | "
        f"{' | '.join(_share(row[kind]) for kind in ('right', 'found', 'refused'))} |"
        for name, row in rows
    )


def _share(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "-"
    share = one["count"] / one["of"]
    return f"{one['count']} of {one['of']} ({share:.1%}; {one['low']:.1%} to {one['high']:.1%})"


def _warnings(said: list[str]) -> str:
    return "\n".join(f"- {each}" for each in said) or "- none"
