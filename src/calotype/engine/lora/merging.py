"""A set of LoRAs added to a base model's own weights, and taken out again bit for bit.

Merged, a popular set costs a pass nothing at all. Its pictures differ in rounding from those that
the same LoRAs make beside the weights, and rows that want another set can't share its passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from calotype.core.errors import AdapterBroken
from calotype.core.messages import RowLora
from calotype.engine.lora.reading import Lora


class Merge:
    """The set is in the weights from here until ``undo``."""

    def __init__(
        self,
        loras: tuple[RowLora, ...],
        read: Sequence[tuple[Lora, float]],
        layers: Mapping[str, torch.nn.Module],
    ) -> None:
        """Add them, in float32, each with its weight; the originals are kept on the host.

        The layers get other memory: another model may have the same weights in common with this.
        Raises AdapterBroken, and changes nothing, if a layer's weights are quantised or would not
        be finite.
        """
        self.loras = loras
        self._layers = layers
        self._originals: dict[str, torch.Tensor] = {}
        try:
            for name in dict.fromkeys(name for lora, _ in read for name in lora.pairs):
                own = layers[name].weight
                merged = _merged(name, own, read)
                self._originals[name] = own.detach().to("cpu")
                _replace(own, merged)
        except AdapterBroken:
            self.undo()
            raise

    def originals(self) -> Iterator[torch.Tensor]:
        """What ``undo`` puts back."""
        yield from self._originals.values()

    def undo(self) -> None:
        """The base model's own weights again, every bit."""
        for name, original in self._originals.items():
            own = self._layers[name].weight
            _replace(own, original.to(own.device))
        self._originals.clear()


def _replace(weight: torch.Tensor, other: torch.Tensor) -> None:
    """Let a weight have other memory: what was in it stays as it was."""
    with torch.inference_mode(False):  # its tensors can't become a weight's
        weight.data = other.clone() if other.is_inference() else other


def _merged(name: str, own: torch.Tensor, read: Sequence[tuple[Lora, float]]) -> torch.Tensor:
    """A layer's weight with all that is added to it, in the weight's dtype."""
    if hasattr(own, "__tensor_flatten__"):  # several tensors in one: torchao's
        raise AdapterBroken(f"{name} is quantised: nothing can be merged into it")
    total = own.detach().float()
    for lora, weight in read:
        if pair := lora.pairs.get(name):
            total = total + weight * pair.to(total.device).product().view_as(total)
    merged = total.to(own.dtype)
    if not bool(merged.isfinite().all()):
        raise AdapterBroken(f"{name}: the merged weights aren't finite")
    return merged
