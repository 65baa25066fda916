"""Take the shipped model apart again, so that training goes on from it in a fresh clone.

``python -m training.restore`` writes the parts of ``src/calotype/models/vignette`` to
``training/runs/parts``, in fp32. Optimisers start anew; data is rendered anew by
``python -m training.dataset``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline

from training import export


def restore(folder: Path = export.MODEL, parts: Path = export.PARTS) -> None:
    """Write each part of the model in ``folder`` to ``parts``; nothing that is there is kept."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    for name in ("vae", "unet", "text_encoder", "text_encoder_2", "tokenizer"):
        getattr(pipeline, name).save_pretrained(parts / name)


def main() -> None:
    """Restore from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=export.MODEL)
    parser.add_argument("--parts", type=Path, default=export.PARTS)
    arguments = parser.parse_args()
    restore(arguments.folder, arguments.parts)


if __name__ == "__main__":
    main()
