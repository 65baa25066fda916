"""Transformers of Stable Diffusion 3 and FLUX by the names that their makers gave the weights.

The way back of what ``from_single_file`` does: products for queries, keys and values lie in one
tensor, and the last modulation has its shift before its scale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

_Names = Mapping[str, str | tuple[str, int]]  # of a part; where several make one, its place there

_SD3_OUTER: _Names = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_SD3_BLOCK: _Names = {
    **{f"attn.to_{it}": ("x_block.attn.qkv", at) for at, it in enumerate("qkv")},
    **{f"attn2.to_{it}": ("x_block.attn2.qkv", at) for at, it in enumerate("qkv")},
    **{f"attn.add_{it}_proj": ("context_block.attn.qkv", at) for at, it in enumerate("qkv")},
    **{f"attn.norm_{it}": f"x_block.attn.ln_{it}" for it in "qk"},
    **{f"attn2.norm_{it}": f"x_block.attn2.ln_{it}" for it in "qk"},
    **{f"attn.norm_added_{it}": f"context_block.attn.ln_{it}" for it in "qk"},
    "attn.to_out.0": "x_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_FLUX_OUTER: _Names = {
    **{
        f"time_text_embed.{theirs}_embedder.linear_{at}": f"{ours}_in.{way}_layer"
        for theirs, ours in (("timestep", "time"), ("text", "vector"), ("guidance", "guidance"))
        for at, way in ((1, "in"), (2, "out"))
    },
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_FLUX_BLOCK: _Names = {
    **{f"attn.to_{it}": ("img_attn.qkv", at) for at, it in enumerate("qkv")},
    **{f"attn.add_{it}_proj": ("txt_attn.qkv", at) for at, it in enumerate("qkv")},
    "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
    "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
    "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
    "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_FLUX_SINGLE: _Names = {
    **{f"attn.to_{it}": ("linear1", at) for at, it in enumerate("qkv")},
    "proj_mlp": ("linear1", 3),
    "attn.norm_q.weight": "norm.query_norm.scale",
    "attn.norm_k.weight": "norm.key_norm.scale",
    "norm.linear": "modulation.lin",
    "proj_out": "linear2",
}


def sd3_transformer(transformer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """``joint_blocks.0.x_block.attn.qkv.weight``, ..."""
    last = len(transformer.transformer_blocks) - 1
    blocks = {"transformer_blocks": ("joint_blocks", _SD3_BLOCK)}
    swapped = ("norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear")
    return _renamed(transformer, _SD3_OUTER, blocks, swapped)


def flux_transformer(transformer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """``double_blocks.0.img_attn.qkv.weight``, ..."""
    blocks = {
        "transformer_blocks": ("double_blocks", _FLUX_BLOCK),
        "single_transformer_blocks": ("single_blocks", _FLUX_SINGLE),
    }
    return _renamed(transformer, _FLUX_OUTER, blocks, ("norm_out.linear",))


def _renamed(
    transformer: Any,
    outer: _Names,
    blocks: Mapping[str, tuple[str, _Names]],
    swapped: Sequence[str],
) -> Iterator[tuple[str, torch.Tensor]]:
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in transformer.state_dict().items():
        is_swapped = name.rpartition(".")[0] in swapped
        kept = torch.cat(tensor.chunk(2)[::-1]) if is_swapped else tensor
        found = re.fullmatch(r"(\w+)\.(\d+)\.(.+)", name)
        if found and found[1] in blocks:
            block, names = blocks[found[1]]
            rest, at = _place(found[3], names)
            place = f"{block}.{found[2]}.{rest}"
        else:
            place, at = _place(name, outer)
        parts.setdefault(place, {})[at] = kept
    for place, tensors in parts.items():
        yield place, torch.cat([tensors[at] for at in sorted(tensors)])


def _place(name: str, names: _Names) -> tuple[str, int]:
    part = next(it for it in names if name == it or name.startswith(f"{it}."))
    there = names[part]
    other, at = (there, 0) if isinstance(there, str) else there
    return other + name.removeprefix(part), at
