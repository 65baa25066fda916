"""Which models there are: their folders read, the broken ones named with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from calotype.core.errors import InvalidInput, ModelBroken
from calotype.core.nouns import ModelInfo
from calotype.pool.folders import FileHashes, read_folder


def embedded_folder() -> Path:
    """The folder of the model that ships with Calotype."""
    return Path(str(files("calotype"))) / "models" / "vignette"


class ModelRegistry:
    """Models in given folders, and in every folder of the models' home. Empty until ``scan``."""

    def __init__(self, folders: Sequence[Path], home_models: Path) -> None:
        """``folders`` are one model each; ``home_models`` holds more, and need not exist."""
        self._folders = tuple(folders)
        self._home_models = home_models
        self._hashes = FileHashes()
        self._models: dict[str, ModelInfo] = {}
        self._broken: dict[str, str] = {}

    def scan(self) -> None:
        """Read all folders anew. Reads gigabytes the first time: call it off the event loop.

        A folder's name is the model's. Of two with the same name the first counts (given folders
        before the home's, those by name), and the other is broken.
        """
        models: dict[str, ModelInfo] = {}
        broken: dict[str, str] = {}
        for folder in self._candidates():
            name = folder.name
            if name in models or name in broken:
                broken[str(folder)] = f"there is another model named {name!r}"
                continue
            try:
                models[name] = read_folder(folder, self._hashes)
            except ModelBroken as error:
                broken[name] = error.detail
        self._models, self._broken = models, broken

    def get(self, name: str) -> ModelInfo:
        """The model of this name; raise InvalidInput, with the names there are, if unknown."""
        if name not in self._models:
            why = f" ({self._broken[name]})" if name in self._broken else ""
            raise InvalidInput(
                f"there is no model named {name!r}{why}", field="model", limit=sorted(self._models)
            )
        return self._models[name]

    def list(self) -> Sequence[ModelInfo]:
        """All models that can be loaded, those of given folders first."""
        return [*self._models.values()]

    def broken(self) -> dict[str, str]:
        """Folders that hold no model we can load: name (or path, of a second) to reason."""
        return dict(self._broken)

    def _candidates(self) -> Iterator[Path]:
        for folder in self._folders:
            yield folder.absolute()
        if self._home_models.is_dir():
            for folder in sorted(self._home_models.iterdir()):
                if folder.is_dir() and not folder.name.startswith("."):
                    yield folder.absolute()
