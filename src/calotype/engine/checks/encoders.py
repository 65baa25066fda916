"""Frozen encoders: what makes a picture a row of numbers, for a linear probe to be trained on.

Two kinds: the convolutions of the shipped domain check, which are always there, and any vision
model of transformers in a folder (CLIP's and SigLIP's halves that see, ViT, DINOv2, ResNet). An
encoder is packed into the folder of the check that was trained on it, so that a check is whole by
itself. Only safetensors, only files that are there, no code out of a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from calotype.core import limits
from calotype.core.picture_checks import ENCODER_FILE
from calotype.engine.checks.base import CheckBroken, Picture, check_weights
from calotype.engine.checks.classifier import LOCAL
from calotype.engine.checks.domain import WIDTHS, DomainNet, brought, read_net
from calotype.engine.libraries import without_progress

DOMAIN, VISION = "domain", "vision"  # kinds, as the configuration of a check names them
CONFIG = "config.json"
_POOLER = "pooler."  # of weights that some checkpoints lack: then the patches' mean is taken


class Encoder(Protocol):
    """A loaded encoder."""

    network: Any  # torch.nn.Module

    @property
    def said(self) -> dict[str, Any]:
        """What has to be known to load it again: "kind", "width" and more, as JSON."""

    def features(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """Pictures (height, width, 3) uint8 RGB of any sizes to (n, width) float32 on the CPU."""


class DomainEncoder:
    """Means and deviations of what the domain check's convolutions find, 128 numbers."""

    def __init__(self, network: DomainNet) -> None:
        self.network = network.eval()

    @property
    def said(self) -> dict[str, Any]:
        """Nothing but its kind."""
        return {"kind": DOMAIN, "width": 2 * WIDTHS[-1]}

    def features(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """See ``Encoder``; pictures are brought to 128 x 128 first."""
        found: torch.Tensor = self.network.features(
            torch.cat([brought(picture) for picture in pictures])
        )
        return found.float()


class VisionEncoder:
    """A vision model of transformers: its pooled output, or the mean of its patches."""

    def __init__(
        self, network: Any, processor: Any, *, is_pooled: bool, device: torch.device
    ) -> None:
        self.network, self.processor = network.eval().to(device), processor
        self._is_pooled, self._device = is_pooled, device
        self._width = _width(network)

    @property
    def said(self) -> dict[str, Any]:
        """Its configuration, so that it can be built without its folder."""
        config = self.network.config.to_dict()
        for name in ("_name_or_path", "transformers_version", "architectures", "torch_dtype"):
            config.pop(name, None)
        return {
            "kind": VISION,
            "width": self._width,
            "model_type": self.network.config.model_type,
            "is_pooled": self._is_pooled,
            "config": json.loads(json.dumps(config, default=str)),
        }

    def features(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """See ``Encoder``; pictures are brought to size by the encoder's own processor."""
        given = self.processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        seen = self.network(pixel_values=given.to(self._device))
        found = seen.pooler_output.flatten(1) if self._is_pooled else seen.last_hidden_state.mean(1)
        return found.float().cpu()


def open_encoder(folder: Path, device: torch.device) -> Encoder:
    """The encoder in a folder that somebody named; raises CheckBroken for what is none."""
    if not (folder / CONFIG).is_file():
        try:
            return DomainEncoder(read_net(folder))
        except CheckBroken as error:
            raise _broken(folder, error.detail) from error
    from transformers import AutoConfig, AutoModel

    without_progress()
    check_weights(folder)
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
        config = getattr(config, "vision_config", config)  # of two halves the one that sees
        network, told = AutoModel.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            **LOCAL,
        )
        processor = _processor(folder)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise _broken(folder, str(error)) from error
    missing = sorted(told["missing_keys"]) + [str(it) for it in told["mismatched_keys"]]
    lost = [name for name in missing if not name.startswith(_POOLER)]
    if lost:
        raise _broken(folder, f"its weights lack {', '.join(lost)[:300]}")
    is_pooled = not missing and _pools(network, processor)
    encoder = VisionEncoder(network, processor, is_pooled=is_pooled, device=device)
    return _of_allowed_width(encoder, folder)


def pack(encoder: Encoder, folder: Path) -> None:
    """Write an encoder's weights, and how it sees pictures, into the folder of a check."""
    weights = {name: it.cpu().contiguous() for name, it in encoder.network.state_dict().items()}
    save_file(weights, folder / ENCODER_FILE, metadata={"format": "pt"})
    if isinstance(encoder, VisionEncoder):
        encoder.processor.save_pretrained(folder)


def packed(said: Mapping[str, Any], folder: Path, device: torch.device) -> Encoder:
    """The encoder that was packed into the folder of a check; raises CheckBroken."""
    try:
        weights = load_file(folder / ENCODER_FILE)
        if said["kind"] == DOMAIN:
            network: Any = DomainNet()
            network.load_state_dict(weights)
            encoder: Encoder = DomainEncoder(network)
        else:
            encoder = _packed_vision(said, weights, folder, device)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _broken(folder, str(error)) from error
    if not all(bool(torch.isfinite(it).all()) for it in weights.values()):
        raise _broken(folder, "it has weights that aren't numbers")
    return encoder


def _packed_vision(
    said: Mapping[str, Any], weights: dict[str, Any], folder: Path, device: torch.device
) -> VisionEncoder:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        said["model_type"], **{k: v for k, v in said["config"].items() if k != "model_type"}
    )
    network = AutoModel.from_config(config, trust_remote_code=False, dtype=torch.float32)
    network.load_state_dict(weights)
    is_pooled = bool(said["is_pooled"])
    return VisionEncoder(network, _processor(folder), is_pooled=is_pooled, device=device)


def _processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, backend="pil", **LOCAL)


@torch.inference_mode()
def _pools(network: Any, processor: Any) -> bool:
    """Whether the network says one row a picture by itself, of its own width."""
    import numpy as np

    black = np.zeros((32, 32, 3), np.uint8)
    seen = network(pixel_values=processor(images=[black], return_tensors="pt")["pixel_values"])
    pooled, width = getattr(seen, "pooler_output", None), _width(network)
    return pooled is not None and tuple(pooled.shape) in ((1, width), (1, width, 1, 1))


def _width(network: Any) -> int:
    """Of its rows; convolutions have a width for each stage, of which the last counts."""
    config = network.config
    sizes = getattr(config, "hidden_sizes", None) or [getattr(config, "hidden_size", 0)]
    return int(sizes[-1])


def _of_allowed_width(encoder: Encoder, folder: Path) -> Encoder:
    if encoder.said["width"] > limits.ENCODER_WIDTH_MAX:
        raise CheckBroken(
            f"{folder} gives {encoder.said['width']:,} numbers a picture",
            field="encoder",
            limit=limits.ENCODER_WIDTH_MAX,
        )
    return encoder


def _broken(folder: Path, why: str) -> CheckBroken:
    return CheckBroken(f"{folder} is no image encoder: {why}"[:500], field="encoder")
