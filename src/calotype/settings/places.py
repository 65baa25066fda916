"""Where things lie in the home folder, and by which settings elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING


class Places:
    """Paths that follow from the settings; a part of them."""

    if TYPE_CHECKING:  # they are settings, and said there
        home: Path
        safety: Path | None
        blocked_pictures: Path | None
        sealed_key: Path | None

    @property
    def pictures_folder(self) -> Path:
        """Where the delivered pictures lie."""
        return self.home / "pictures"

    @property
    def quarantine_folder(self) -> Path:
        """Where withdrawn pictures lie; nothing is served from there."""
        return self.home / "quarantine"

    @property
    def removals_folder(self) -> Path:
        """What was withdrawn or deleted, outside the database: not to be restored with it."""
        return self.home / "removals"

    @property
    def inputs_folder(self) -> Path:
        """Where the pictures lie that people sent, for their jobs to begin from."""
        return self.home / "inputs"

    @property
    def secrets_folder(self) -> Path:
        """Where the link secret and the development certificate lie."""
        return self.home / "secrets"

    @property
    def key_path(self) -> Path:
        """The local command line's API key, readable by its owner only."""
        return self.home / "key"

    @property
    def safety_path(self) -> Path | None:
        """The file of policies and picture checks, if there is one."""
        usual = self.home / "safety.toml"
        return self.safety or (usual if usual.is_file() else None)

    @property
    def hashes_folder(self) -> Path:
        """Where the lists of known pictures lie that were added by command."""
        return self.home / "hashes"

    @property
    def hash_lists(self) -> list[Path]:
        """Every list of known pictures, and every folder of some."""
        added = [self.hashes_folder] if self.hashes_folder.is_dir() else []
        return added + ([self.blocked_pictures] if self.blocked_pictures else [])

    @property
    def trials_folder(self) -> Path:
        """Where it is recorded what checks on trial say: two files a check."""
        return self.home / "trials"

    @property
    def logs_folder(self) -> Path:
        """What the server and its engines write as they run: a file each."""
        return self.home / "logs"

    @property
    def server_file(self) -> Path:
        """What a running server says of itself: ``{pid, url, started_at}``."""
        return self.home / "server.json"

    @property
    def sealed_folder(self) -> Path:
        """Where pictures lie that wait for people, and severe cases: encrypted."""
        return self.home / "sealed"

    @property
    def sealed_key_path(self) -> Path:
        """The key of what is sealed."""
        return self.sealed_key or self.secrets_folder / "sealed"
