"""``calotype models``: what this installation can draw with, and what operators do with it.

Adding and pulling are in ``models_adding``, aliases, canaries and pins in ``models_aliases``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli import models_adding, models_aliases, models_where
from calotype.cli.catalogues import Reference, catalogue_of, not_served
from calotype.cli.console import FAILED, AsJson, Home, print_json, print_table, say_error

if TYPE_CHECKING:
    from calotype.pool.catalogue import Catalogue
    from calotype.pool.kinds import ModelKind
    from calotype.pool.shelf import Entry

app = typer.Typer(
    help="Models, LoRAs, ControlNets, VAEs, classifiers: list, add, pull, verify, name versions.",
    no_args_is_help=True,
)
app.command("add")(models_adding.add)
app.command("pull")(models_adding.pull)
app.command("remove")(models_aliases.remove)
app.command("alias")(models_aliases.alias)
app.command("promote")(models_aliases.promote)
app.command("rollback")(models_aliases.rollback)
app.command("canary")(models_aliases.canary)
app.command("pin")(models_aliases.pin)
app.command("unpin")(models_aliases.unpin)
app.command("where")(models_where.where)


@app.command("list")
def list_models(*, as_json: AsJson = False, home: Home = None) -> None:
    """List the models, and what can be added to them, without loading any."""
    from calotype.core.nouns import AdapterKind
    from calotype.pool.kinds import ModelKind

    catalogue = catalogue_of(home, is_quick=not as_json)  # only JSON tells builds
    broken = catalogue.broken()
    unserved = not_served(home, catalogue.models.offered())
    if as_json:
        told: dict[str, Any] = {
            "models": [asdict(it) for it in catalogue.models.offered()],
            "loras": [asdict(it) for it in catalogue.adapters.list(AdapterKind.LORA)],
            "controls": [asdict(it) for it in catalogue.adapters.list(AdapterKind.CONTROL)],
            "vaes": [asdict(it) for it in catalogue.shelf(ModelKind.VAE).offered()],
            "classifiers": [asdict(it) for it in catalogue.shelf(ModelKind.CLASSIFIER).offered()],
        }
        told |= {"versions": _versions(catalogue), "not_served": unserved}
        print_json({**told, "broken": dict(broken)})
        return
    print_table(
        ("name", "title", "family", "size", "pixels", "steps", "sampler", "versions", "licence"),
        [
            (
                it.name,
                it.title,
                it.family,
                f"{it.parameter_bytes / 1e6:.1f} MB",
                f"{it.width} x {it.height}",
                str(it.steps),
                it.sampler.value,
                _aliases_said(catalogue, ModelKind.BASE, it.name),
                it.licence,
            )
            for it in catalogue.models.offered()
        ],
    )
    others = [kind for kind in ModelKind if kind is not ModelKind.BASE]
    rows = [_row(catalogue, kind, it) for kind in others for it in catalogue.shelf(kind).offered()]
    if rows:
        titles = ("name", "title", "kind", "size", "for", "versions", "licence")
        print_table(titles, rows)
    for name, reason in broken.items():
        say_error(f"{name} can't be used: {reason}")
    for name, missing in unserved.items():
        say_error(f"{name} isn't served: {'; '.join(missing)}")


@app.command("show")
def show(reference: Reference, *, as_json: AsJson = False, home: Home = None) -> None:
    """Show one model: what its headers say, its versions and aliases with their history."""
    from calotype.pool.catalogue import own_name

    catalogue = catalogue_of(home)
    named = catalogue.find(reference)
    shelf = catalogue.shelf(named.kind)
    told: dict[str, Any] = {
        "kind": named.kind.value,
        "name": named.name,
        "version": named.version or None,
        "broken": shelf.broken.get(own_name(named)) if named.entry is None else None,
        "model": asdict(named.entry.info) if named.entry is not None else None,
        "record": named.entry.record.model_dump(mode="json")
        if named.entry is not None and named.entry.record is not None
        else None,
        "versions": [it for it in _versions(catalogue) if it["name"] == named.name
                     and it["kind"] == named.kind],
        "aliases": {word: it.model_dump() for word, it in shelf.aliases(named.name).items()},
    }  # fmt: skip
    if as_json:
        print_json(told)
        return
    print(f"{named.kind}/{own_name(named)}")
    for key, value in (told["model"] or {"broken": told["broken"]}).items():
        print(f"  {key:16} {_said(value)}")
    for it in told["versions"]:
        print(f"  version {it['version']}  {it['added_at']}  {it['source']}")
    for word, it in told["aliases"].items():
        trial = (
            f", {100 * it['canary']['share']:g} % try {it['canary']['version']}"
            if it["canary"]
            else ""
        )
        print(f"  @{word} is {it['version']}{trial}")
        for change in it["history"]:
            print(f"    {change['at']}  {change['version']}  {change['why']}")


@app.command("verify")
def verify(
    references: Annotated[
        list[str] | None,
        typer.Argument(help="Which; none: all that were registered.", show_default=False),
    ] = None,
    *,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Read every byte of registered models again and hold it against its hash.

    Exit code 1 if any isn't what was registered.
    """
    from calotype.core.errors import ModelBroken

    catalogue = catalogue_of(home, is_quick=True)
    found: dict[str, str | None] = {}
    for kind, name, version in _registered(catalogue, references or ()):
        folder = catalogue.versions.folder(kind, name, version)
        try:
            record = catalogue.versions.record(kind, name, folder)
            catalogue.versions.verify(folder, record)
            found[f"{kind}/{name}@{version}"] = None
        except ModelBroken as error:
            found[f"{kind}/{name}@{version}"] = error.detail
    if as_json:
        print_json({"ok": not any(found.values()), "models": found})
    else:
        for own, reason in found.items():
            print(f"{own}  {reason or 'as registered'}")
    if any(found.values()):
        raise typer.Exit(FAILED)


def _registered(
    catalogue: Catalogue, references: list[str] | tuple[()]
) -> list[tuple[ModelKind, str, str]]:
    from calotype.core.errors import InvalidInput
    from calotype.pool.kinds import ModelKind

    if not references:
        return [
            (kind, name, folder.name)
            for kind in ModelKind
            for name, folder in catalogue.versions.folders(kind)
        ]
    found = []
    for reference in references:
        named = catalogue.find(reference)
        if not named.version:
            raise InvalidInput(
                f"{reference} was not registered: nothing says what it should be",
                field="reference",
                limit="what calotype models add or pull took in",
            )
        found.append((named.kind, named.name, named.version))
    return found


def _versions(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Every registered version that can be used, with the words that stand for it."""
    from calotype.pool.kinds import ModelKind

    pinned = catalogue.versions.state().pinned
    return [
        {
            "kind": kind.value,
            "name": (record := entry.record).name,
            "version": record.version,
            "added_at": record.added_at,
            "source": record.source,
            "mode": record.mode,
            "licence": entry.info.licence,
            "aliases": _words(catalogue, kind, entry),
            "is_pinned": f"{kind}/{entry.name}" in pinned,
        }
        for kind in ModelKind
        for entry in catalogue.shelf(kind).entries()
        if entry.record is not None
    ]


def _words(catalogue: Catalogue, kind: ModelKind, entry: Entry[Any]) -> list[str]:
    """What stands for a version: ``stable``, ``canary of stable (5 %)``."""
    assert entry.record is not None
    found = []
    for word, alias in catalogue.shelf(kind).aliases(entry.record.name).items():
        if alias.version == entry.record.version:
            found.append(word)
        if alias.canary is not None and alias.canary.version == entry.record.version:
            found.append(f"canary of {word} ({100 * alias.canary.share:g} %)")
    return found


def _aliases_said(catalogue: Catalogue, kind: ModelKind, name: str) -> str:
    entries = [
        it
        for it in catalogue.shelf(kind).entries()
        if it.record is not None and it.record.name == name
    ]
    said = []
    for entry in entries:
        assert entry.record is not None
        words = ", ".join(_words(catalogue, kind, entry))
        said.append(f"{entry.record.version[:8]}{f' ({words})' if words else ''}")
    return "\n".join(said) or "a folder"


def _row(catalogue: Catalogue, kind: ModelKind, info: Any) -> tuple[str, ...]:
    from calotype.pool.kinds import WORDS

    return (
        info.name,
        info.title,
        WORDS[kind],
        f"{info.bytes / 1e6:.1f} MB",
        getattr(info, "task", "") or ", ".join(info.bases) or "it doesn't say",
        _aliases_said(catalogue, kind, info.name),
        info.licence,
    )


def _said(value: Any) -> str:
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return "; ".join(" ".join(str(it) for it in each.values()) for each in value)
    if isinstance(value, list | tuple):
        return ", ".join(str(it) for it in value)
    return str(value)
