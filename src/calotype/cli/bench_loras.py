"""LoRAs of no meaning for ``calotype bench engine``: random weights on a model's attention layers.

They are as large and as slow as real ones, and change the picture, so that a system which leaves
them out is found out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from calotype.core.messages import RowLora

_RANK = 8
_SHARE = 0.2  # of a layer's own weights' scale


def make_loras(model_folder: Path, folder: Path, count: int, seed: int) -> dict[str, RowLora]:
    """Write ``count`` LoRAs in diffusers' naming (float32, rank 8) and return them by name.

    They are for the linear layers of the UNet's attention. The same seed writes the same bytes.
    """
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file

    unet = next((model_folder / "unet").glob("*.safetensors"))
    loras = {}
    for number in range(count):
        chance = np.random.default_rng([seed, number])
        weights = {}
        with safe_open(unet, framework="numpy") as opened:
            for key in sorted(opened.keys()):
                layer = key.removesuffix(".weight")
                if not layer.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")):
                    continue
                weight = opened.get_tensor(key)
                down = chance.normal(0.0, weight.shape[1] ** -0.5, (_RANK, weight.shape[1]))
                up = chance.normal(0.0, _SHARE * float(weight.std()), (weight.shape[0], _RANK))
                # ``down`` keeps a unit input's size, so ``up @ down`` is that share of the layer.
                up *= (weight.shape[1] / _RANK) ** 0.5
                weights[f"unet.{layer}.lora_A.weight"] = down.astype(np.float32)
                weights[f"unet.{layer}.lora_B.weight"] = up.astype(np.float32)
        name = f"lora-{number}"
        path = folder / f"{name}.safetensors"
        save_file(weights, path)
        build = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        loras[name] = RowLora(name=name, path=str(path), build=build, weight=1.0)
    return loras
