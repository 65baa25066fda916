"""exiftool, an independent reader of pictures' metadata.

Where there is none, ``python -m tests.exiftool`` installs Debian's package (``make test`` runs it).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import debian


def find() -> str | None:
    """The path of exiftool, or None."""
    return shutil.which("exiftool")


def read(file: Path) -> dict[str, Any]:
    """What it says of a file, numbers as numbers."""
    said = subprocess.run(["exiftool", "-json", "-n", str(file)], capture_output=True, check=True)
    (told,) = json.loads(said.stdout)
    assert isinstance(told, dict)
    return told


if __name__ == "__main__":
    sys.exit(
        debian.ready(find, "libimage-exiftool-perl", "exiftool", "a test reads pictures with it.")
    )
