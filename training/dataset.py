"""The pictures trained on, with their scenes: rendered once, kept in shards, read in place.

``python -m training.dataset --count 48000`` renders into ``training/runs/data/train/``. Shard 3 is
``00003.npy`` (uint8, pictures x 128 x 128 x 3, read through the page cache) beside ``00003.jsonl``
(one scene a line, in the same order). A whole shard is kept, so that a run that was ended goes on
where it was; ``--split unseen`` renders the held-out combinations, which no trainer reads.

It knows what a scene is and calls the renderer; it knows nothing of captions and of training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.scenes import Scene, Thing, is_held_out, sample_scene

DATA = Path(__file__).parent / "runs" / "data"
SIDE = 128  # pixels
SHARD = 4000  # pictures
SLICE = 100  # pictures a worker renders at a time
SPLITS = ("train", "unseen")


def scene_at(split: str, index: int) -> Scene:
    """The scene of picture ``index`` in a split: the same one on every machine, at every count."""
    rng = random.Random(f"{split} {index}")
    while True:
        scene = sample_scene(rng)
        if is_held_out(scene) == (split == "unseen"):
            return scene


def scene_to_line(scene: Scene) -> str:
    """One scene as one line of JSON."""
    return json.dumps(dataclasses.asdict(scene), separators=(",", ":"))


def scene_of_line(line: str) -> Scene:
    """The scene that ``scene_to_line`` wrote."""
    fields: dict[str, Any] = json.loads(line)
    things = tuple(Thing(**thing) for thing in fields.pop("things"))
    return Scene(**fields, things=things)


class Pictures:
    """All whole shards of a split as one sequence; pictures stay on disk until they are asked for.

    ``len`` counts the pictures there were when it was made: a dataset that is still being rendered
    is read again by making a new one.
    """

    def __init__(self, split: str = "train", folder: Path = DATA) -> None:
        paths = sorted((folder / split).glob("[0-9]*.npy"))
        if not paths:
            raise FileNotFoundError(f"no pictures in {folder / split}: run training.dataset")
        self.paths = paths
        self.shards = [np.load(path, mmap_mode="r") for path in paths]
        self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> np.ndarray:
        """Picture ``index``: uint8 (128, 128, 3)."""
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        picture: np.ndarray = self.shards[shard][index - self.starts[shard]]
        return picture

    def batch(self, indices: Iterator[int] | list[int]) -> np.ndarray:
        """These pictures in one array: uint8 (n, 128, 128, 3)."""
        return np.stack([self[index] for index in indices])

    def scenes(self) -> list[Scene]:
        """The scenes of all pictures, in order."""
        lines = (path.with_suffix(".jsonl").read_text().splitlines() for path in self.paths)
        return [scene_of_line(line) for shard in lines for line in shard]


def _render_slice(task: tuple[str, int, Path, int]) -> int:
    """Render pictures ``first``.. into their rows of an open shard; return how many."""
    from training.render import render

    split, first, path, row = task
    pictures = np.lib.format.open_memmap(path, mode="r+")
    count = min(SLICE, len(pictures) - row)
    for k in range(count):
        pictures[row + k] = render(scene_at(split, first + k), SIDE)
    pictures.flush()
    return count


def _shard(pool: Any, split: str, first: int, count: int, path: Path) -> Iterator[int]:
    """Render one shard of ``count`` pictures from index ``first`` on, telling of each slice."""
    beside = path.with_suffix(".part")
    np.lib.format.open_memmap(beside, "w+", np.uint8, (count, SIDE, SIDE, 3)).flush()
    tasks = [(split, first + row, beside, row) for row in range(0, count, SLICE)]
    yield from pool.imap_unordered(_render_slice, tasks)
    lines = [scene_to_line(scene_at(split, first + k)) for k in range(count)]
    path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
    beside.rename(path)  # last: a shard with this name is whole


def make(split: str, count: int, workers: int, folder: Path = DATA) -> int:
    """Render what is missing of the first ``count`` pictures; return how many were rendered."""
    if split not in SPLITS or count < 1:
        raise ValueError(f"split must be one of {SPLITS} and count at least 1: {split}, {count}")
    (folder / split).mkdir(parents=True, exist_ok=True)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # the workers are the parallelism
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    rendered = 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool, Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task(f"rendering {split}", total=count)
        for number, first in enumerate(range(0, count, SHARD)):
            size = min(SHARD, count - first)
            path = folder / split / f"{number:05}.npy"
            if path.exists() and len(np.load(path, mmap_mode="r")) >= size:
                progress.advance(bar, size)
                continue
            for done in _shard(pool, split, first, size, path):
                progress.advance(bar, done)
                rendered += done
    return rendered


def main() -> None:
    """Render from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=48000)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=DATA)
    arguments = parser.parse_args()
    rendered = make(arguments.split, arguments.count, arguments.workers, arguments.folder)
    print(f"{arguments.folder / arguments.split}: {rendered} pictures rendered")


if __name__ == "__main__":
    main()
