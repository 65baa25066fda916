"""One load, timed: what ``calotype bench load`` runs, each in a process of its own.

Run as ``python -m calotype.engine.load_speed``; the last line of stdout is JSON. Libraries are
imported before the clock starts. Models are loaded twice: ``first_s`` is the process's first load,
all else is of the second, as an engine makes most of its own. A load has *returned* when the call
has, and ended (``seconds``) when a byte of each page of its weights was read: what is only mapped
has yet to be.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import mmap
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from calotype.engine.libraries import before_libraries

Load = Callable[[], Any]  # its modules or tensors, or how many bytes were read
_BUFFER_BYTES = 16 * 1024**2
_PAGE_BYTES = mmap.PAGESIZE


def main() -> None:
    """Measure as the arguments say."""
    asked = _arguments()
    before_libraries()
    folder = Path(asked.model)
    files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else [folder]
    load = _LOADS[asked.how](folder, asked)
    gc.collect()
    gc.freeze()  # as an engine does
    said: dict[str, float] = {}
    if asked.how not in _PLAIN:
        read(files)
        said["first_s"] = _timed(load)["seconds"]
        gc.collect()
    if asked.cold:
        resident = _drop(files)
    else:
        read(files)
        resident = 1.0
    said["bytes"] = sum(file.stat().st_size for file in files)
    said["resident"] = resident  # share of the files in the page cache, when it began
    print(json.dumps(said | _timed(load)))


def _timed(load: Load) -> dict[str, float]:
    """Load, touch what was loaded, and let it go."""
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    loaded = load()
    returned_s, returned_cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    touched_s = touched_cpu_s = 0.0
    if not isinstance(loaded, int):
        tensors = _tensors(loaded)
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        _touch(tensors)
        touched_s, touched_cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
        loaded = _bytes_of(tensors)
    return {
        "seconds": returned_s + touched_s,
        "returned_s": returned_s,
        "cpu_s": returned_cpu_s + touched_cpu_s,  # all threads'; others hardly lengthen it
        "peak_bytes": _memory("VmHWM") - before,
        "kept": loaded,
    }


def _ours(folder: Path, asked: argparse.Namespace) -> Load:
    import torch

    from calotype.core.messages import LoadModel
    from calotype.engine.device import prepare_device
    from calotype.engine.families.loading import load_model

    device = prepare_device()
    command = LoadModel("bench", str(folder), "bench", dtype=asked.dtype)
    _import_classes(folder)

    def load() -> Any:
        with torch.inference_mode():
            model = load_model(command, device)
        return [model.vae, model.denoiser, *model.encoders]

    return load


def _staged(folder: Path, asked: argparse.Namespace) -> Load:
    """The same from a copy in host memory, which an earlier load has left."""
    import torch

    from calotype.core.messages import LoadModel
    from calotype.core.nouns import Component
    from calotype.engine.components import Components
    from calotype.engine.device import prepare_device
    from calotype.engine.families.loading import load_model
    from calotype.engine.resident import tidy
    from calotype.engine.staging import Staging

    device = prepare_device()
    whole = (Component("bench", "model", 0),)
    command = LoadModel("bench", str(folder), "bench", dtype=asked.dtype, components=whole)
    staging = Staging(device, 1 << 62)
    shared = Components(staging.find)

    def load() -> Any:
        with torch.inference_mode():
            model = load_model(command, device, components=shared)
        return [model.vae, model.denoiser, *model.encoders]

    with torch.inference_mode():
        model = load_model(command, device, components=shared)
        parts = {it: found for it in model.contents if (found := shared.live(it)) is not None}
        why_not = staging.keep(command, parts)
    assert parts, "nothing to copy"
    assert not why_not, why_not
    del model, parts
    tidy(device)
    return load


def _from_pretrained(folder: Path, asked: argparse.Namespace) -> Load:
    import diffusers

    from calotype.engine.device import prepare_device, weights_dtype
    from calotype.engine.libraries import without_progress

    without_progress()
    device = prepare_device()
    kind = _import_classes(folder)
    dtype = weights_dtype(device, asked.dtype)

    def load() -> Any:
        pipeline: Any = getattr(diffusers, kind).from_pretrained(folder, dtype=dtype)
        if asked.how == "upcast":
            pipeline.vae.float()
        return [it for it in pipeline.components.values() if hasattr(it, "parameters")]

    return load


def _read(folder: Path, asked: argparse.Namespace) -> Load:
    """All bytes through one buffer: nothing that reads a file by copying can be quicker."""
    del asked
    return lambda: read(sorted(folder.rglob("*.safetensors")))


def _keep(folder: Path, asked: argparse.Namespace) -> Load:
    """All bytes into memory that holds them: what a load does at least, if it copies."""
    del asked
    files = sorted(folder.rglob("*.safetensors"))
    held = []

    def load() -> int:
        for file in files:
            held.append(file.read_bytes())  # noqa: PERF401 - one after the other, as it reads
        return sum(map(len, held))

    return load


def _map(folder: Path, asked: argparse.Namespace) -> Load:
    """All bytes mapped, and a byte of each page read: what a load does that copies nothing."""
    del asked
    files = sorted(folder.rglob("*.safetensors"))

    def load() -> int:
        import numpy as np

        mapped = [np.memmap(file, np.uint8, "r") for file in files]
        for one in mapped:
            int(one[::_PAGE_BYTES].sum())
        return sum(it.nbytes for it in mapped)

    return load


def _lora(file: Path, asked: argparse.Namespace) -> Load:
    """A LoRA's file, read, checked and laid beside the layers of a base model."""
    from diffusers import UNet2DConditionModel

    from calotype.engine.device import prepare_device, weights_dtype
    from calotype.engine.families.parts import without_weights
    from calotype.engine.lora.layers import layers_of
    from calotype.engine.lora.reading import read_lora

    device = prepare_device()
    layers = layers_of(without_weights(UNet2DConditionModel, Path(asked.base) / "unet"))
    dtype = weights_dtype(device, asked.dtype)

    def load() -> Any:
        lora = read_lora(file, "bench", layers, dtype)
        pairs = [pair.to(device) for pair in lora.pairs.values()]
        return [tensor for pair in pairs for tensor in (pair.down, pair.up)]

    return load


_PLAIN: dict[str, Callable[[Path, argparse.Namespace], Load]] = {
    "read": _read,
    "keep": _keep,
    "map": _map,
}
_LOADS = {
    "ours": _ours,
    "staged": _staged,
    "from_pretrained": _from_pretrained,
    "upcast": _from_pretrained,  # and the decoder to float32: what ours does, and SDXL needs
    "lora": _lora,
    **_PLAIN,
}


def _import_classes(folder: Path) -> str:
    """Import what a folder's pipeline is made of, which comes on first use; its class's name."""
    import diffusers
    import transformers

    index = json.loads((folder / "model_index.json").read_text())
    for what in index.values():
        if isinstance(what, list) and what[0] in ("diffusers", "transformers"):
            getattr({"diffusers": diffusers, "transformers": transformers}[what[0]], what[1])
    name: str = index["_class_name"]
    getattr(diffusers, name)
    return name


def _tensors(loaded: Any) -> list[Any]:
    """The parameters of modules, or the tensors that they are; each (bytes,), uint8."""
    import torch

    modules = [it for it in loaded if isinstance(it, torch.nn.Module)]
    found = [it for module in modules for it in module.parameters()] if modules else loaded
    return [it.detach().reshape(-1).view(torch.uint8) for it in found]


def _touch(tensors: Iterable[Any]) -> None:
    """Read a byte of each page."""
    for tensor in tensors:
        int(tensor.numpy()[::_PAGE_BYTES].sum())


def _bytes_of(tensors: Iterable[Any]) -> int:
    from calotype.engine.tensors import bytes_of

    return bytes_of(tensors)


def read(files: Iterable[Path]) -> int:
    """Read all bytes of the files, with the system's usual calls; how many they are."""
    buffer, total = memoryview(bytearray(_BUFFER_BYTES)), 0
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                total += count
    return total


def _drop(files: Iterable[Path]) -> float:
    """Have the system forget the files' pages; the share that it kept all the same."""
    kept = pages = 0
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())  # what isn't on the disk yet would be kept
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped:
                count = -(-len(mapped) // _PAGE_BYTES)
                found = (ctypes.c_ubyte * count)()
                address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
                libc = ctypes.CDLL(None)
                libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), found)
                kept += sum(it & 1 for it in found)
                pages += count
    return kept / pages


def _memory(line: str) -> int:
    """A line of /proc/self/status, in bytes."""
    found = re.search(rf"{line}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, line
    return 1024 * int(found[1])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="calotype.engine.load_speed", description=__doc__)
    parser.add_argument("--model", required=True, help="diffusers folder; for a LoRA, its file")
    parser.add_argument("--base", help="for a LoRA, the base model's folder")
    parser.add_argument("--how", choices=_LOADS, required=True)
    parser.add_argument("--dtype", default="fp16")
    parser.add_argument("--cold", action="store_true", help="with nothing in the page cache")
    return parser.parse_args()


if __name__ == "__main__":
    main()
