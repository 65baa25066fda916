"""``calotype watermark train``: a model's decoder that draws a mark into each of its pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from calotype.cli.console import AsJson, Home, print_json, say
from calotype.core import limits
from calotype.core.errors import InternalError, InvalidInput, OperatorError

if TYPE_CHECKING:
    from calotype.core.nouns import ModelInfo

_SECRET_BYTES = 8  # of which the key's bits are the first ones
_STEPS, _DECODER_STEPS = 14_000, 1_500
Model = Annotated[
    str, typer.Argument(help="Its name, or a folder in diffusers' layout.", show_default=False)
]
Pictures = Annotated[
    Path,
    typer.Option(
        help="What to learn from: a folder of files, or one .npy file (n x h x w x 3, uint8)."
    ),
]
Bits = Annotated[int, typer.Option(min=limits.MARK_BITS_MIN, max=limits.MARK_BITS_MAX)]
Steps = Annotated[int, typer.Option(min=1, max=limits.MARK_STEPS_MAX)]
Batch = Annotated[int, typer.Option(min=2, max=256, help="Pictures a step.")]
DecoderBatch = Annotated[int, typer.Option(min=1, max=256, help="The same.")]
Psnr = Annotated[
    float, typer.Option(min=20, max=60, help="To the unmarked decoder, dB: higher is fainter.")
]
Side = Annotated[
    int | None, typer.Option(min=64, max=limits.MARK_SIDE_PX_MAX, help="Of the pictures, pixels.")
]
Seed = Annotated[int, typer.Option(help="Of the training; the key is always random.")]
Device = Annotated[Literal["cpu", "cuda"], typer.Option()]
Threads = Annotated[int | None, typer.Option(min=1, help="Of the CPU; unset: all.")]
Folder = Annotated[
    Path | None, typer.Option(help="Of checkpoints, to go on from; unset: in the home folder.")
]


@dataclass(frozen=True)
class _Ended:
    """What the training's process said last."""

    is_done: bool
    bits: float = 0.0  # share of unseen pictures' bits that are right
    psnr: float = 0.0  # to the unmarked decoder's pictures, dB


def train(
    model: Model,
    *,
    pictures: Pictures,
    bits: Bits = 32,
    steps: Steps = _STEPS,
    decoder_steps: Steps = _DECODER_STEPS,
    batch: Batch = 16,
    decoder_batch: DecoderBatch = 4,
    psnr: Psnr = 30.0,
    side: Side = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    folder: Folder = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Teach a model's decoder to draw a mark: an extractor first, then the decoder.

    Ctrl-C ends it with checkpoints, and the same command goes on. Servers use the decoder from
    their next start on if the setting marked_decoders is on.
    """
    from calotype.cli.home import prepare_home
    from calotype.files.private import secret_in
    from calotype.flow.marked_decoders import folder_of
    from calotype.provenance import stable_signature_keys
    from calotype.settings import Settings

    settings = Settings(home=home)
    prepare_home(settings)
    info = _model(model, home)
    vae, component = _autoencoder(info)
    run = folder or settings.home / "marking" / component
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = _bits(secret_in(run / "key", _SECRET_BYTES), bits)
    rooting = {"steps": decoder_steps, "batch": decoder_batch, "psnr_db": psnr, "seed": seed}
    ended = _run(
        {
            "vae": str(vae),
            "pictures": str(pictures.absolute()),
            "folder": str(run.absolute()),
            "key": key,
            "side_px": side or min(info.width, limits.MARK_SIDE_PX_MAX),
            "hiding": {"steps": steps, "batch": batch, "seed": seed},
            "rooting": rooting,
            "device": device,
            "threads": threads,
        }
    )
    if not ended.is_done:
        say(f"stopped; the same command goes on from {run}")
        raise typer.Exit(1)
    drawn_px, now = max(info.width, info.height), datetime.now(UTC)
    mark = stable_signature_keys.keep(
        folder_of(settings), run, key, made_for=component, made_at=now, drawn_px=drawn_px
    )
    _tell(mark.key, ended, as_json=as_json)


def _tell(key: str, ended: _Ended, *, as_json: bool) -> None:
    if as_json:
        print_json({"key": key, "bits_right": ended.bits, "psnr": ended.psnr})
    else:
        right, db = f"{ended.bits:.1%} of bits right", f"{ended.psnr:.1f} dB"
        print(f"{key}: {right}, {db}, on unseen pictures")


def _model(name: str, home: Path | None) -> ModelInfo:
    from calotype.cli.catalogues import catalogue_of
    from calotype.pool.files import FileHashes
    from calotype.pool.folders import read_folder

    if Path(name).is_dir():
        return read_folder(Path(name).absolute(), FileHashes())
    return catalogue_of(home).models.choose(name).info


def _autoencoder(model: ModelInfo) -> tuple[Path, str]:
    """Its folder, and the id that marks are found by."""
    from calotype.pool.components import VAE

    component = next((it.id for it in model.components if it.kind == VAE), None)
    folder = Path(model.path) / VAE
    if component is None or not any(folder.glob("*.safetensors")):
        raise InvalidInput(f"{model.name} has no autoencoder in a folder of its own", field="model")
    return folder, component


def _bits(secret: bytes, count: int) -> list[int]:
    number = int.from_bytes(secret, "big")
    return [number >> k & 1 for k in range(count)]


def _run(order: dict[str, Any]) -> _Ended:
    """Have it done in a process of its own, and show how far it is; Ctrl-C is that process's."""
    process = subprocess.Popen(
        [sys.executable, "-m", "calotype.engine.marking"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.close()
    measured: dict[str, Any] = {}
    with _shown() as show:
        while True:
            try:
                line = process.stdout.readline()
            except KeyboardInterrupt:  # the process was told, too; it ends when it has saved
                continue
            if not line:
                break
            fact = json.loads(line)
            if "failed" in fact:
                process.wait()
                raise OperatorError(fact["failed"])
            if "done" in fact:
                process.wait()
                return _Ended(fact["done"], **measured)
            if "part" in fact:
                show(fact)
            else:
                measured = fact
    raise InternalError(f"the training's process ended with exit code {process.wait()}")


@contextmanager
def _shown() -> Iterator[Any]:
    """A bar for each of the two parts."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[str, Any] = {}

        def show(fact: dict[str, Any]) -> None:
            part = fact["part"]
            if part not in bars:
                bars[part] = progress.add_task(part, total=fact["steps"])
            db = f", {fact['psnr']:.1f} dB" if "psnr" in fact else ""
            said = f"{part}: loss {fact['loss']:.3f}, bits {fact['bits']:.0%}{db}"
            progress.update(bars[part], completed=fact["step"], description=said)

        yield show
