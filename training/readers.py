"""What the text encoders are trained to let others read out of them: a caption's ``Said``.

An *item* is one thing to read: each attribute of the setting, then for each kind of object whether
it is there, its colour and its place. ``Reader`` answers all items from an encoder's output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.captions import ATTRIBUTES, UNSAID, Said
from training.scenes import COLOURS, OBJECTS, PLACES

IGNORED = -100  # the colour and place of an object that is not named
ITEMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((name, (UNSAID, *classes)) for name, classes in ATTRIBUTES.items()),
    *((f"{kind} there", ("no", "yes")) for kind in OBJECTS),
    *((f"{kind} colour", (UNSAID, *COLOURS)) for kind in OBJECTS),
    *((f"{kind} place", (UNSAID, *PLACES)) for kind in OBJECTS),
)
CLASSES_MAX = max(len(classes) for _, classes in ITEMS)
GROUPS = (*ATTRIBUTES, "there", "colour", "place")  # items of one group are reported together


def targets(said: Said) -> list[int]:
    """The class of every item, ``IGNORED`` where there is nothing to say."""
    found = [classes.index(getattr(said, name)) for name, classes in ITEMS[: len(ATTRIBUTES)]]
    found += [int(kind in said.things) for kind in OBJECTS]
    for field, classes in (("colour", COLOURS), ("place", PLACES)):
        names = (UNSAID, *classes)
        found += [
            names.index(getattr(said.things[kind], field)) if kind in said.things else IGNORED
            for kind in OBJECTS
        ]
    return found


class Reader(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Answers every item: (n, tokens, width) or pooled (n, width) to logits (n, items, classes).

    Of tokens, each item takes its own weighted mean, much as a UNet's cross attention would.
    Classes that an item does not have get a logit of -1e4.
    """

    def __init__(self, width: int, *, pooled: bool) -> None:
        super().__init__()
        count = len(ITEMS)
        self.pooled = pooled
        self.norm = nn.LayerNorm(width)
        if not pooled:
            self.queries = nn.Parameter(torch.randn(count, width) * width**-0.5)
            self.keys = nn.Linear(width, width, bias=False)
        self.weights = nn.Parameter(torch.randn(count, width, CLASSES_MAX) * width**-0.5)
        allowed = [[0.0] * len(c) + [-1e4] * (CLASSES_MAX - len(c)) for _, c in ITEMS]
        self.biases = nn.Parameter(torch.zeros(count, CLASSES_MAX))
        self.register_buffer("allowed", torch.tensor(allowed))

    def forward(self, hidden: Tensor) -> Tensor:
        """Read every item; shapes as the class says."""
        hidden = self.norm(hidden)
        if self.pooled:
            logits = torch.einsum("nw,iwc->nic", hidden, self.weights)
        else:
            scores = self.keys(hidden) @ self.queries.T  # (n, tokens, items)
            read = functional.softmax(scores, dim=1).transpose(1, 2) @ hidden
            logits = torch.einsum("niw,iwc->nic", read, self.weights)
        return logits + self.biases + self.allowed


def losses(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross entropy over items that are not ``IGNORED``; logits (n, items, classes)."""
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED
    )


def accuracies(guesses: Tensor, wanted: Tensor) -> dict[str, tuple[float, float]]:
    """For each group the shares right of said and of unsaid items; classes are (n, items)."""
    found = {}
    for group in GROUPS:
        columns = [i for i, (name, _) in enumerate(ITEMS) if name.split()[-1] == group]
        guess, want = guesses[:, columns], wanted[:, columns]
        right = guess == want
        found[group] = (
            float(right[want > 0].float().mean()),
            float(right[want == 0].float().mean()),
        )
    return found
