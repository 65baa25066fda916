"""Makes sure there is a Chromium for the tests of the page; ``make test`` runs it first.

Looks at CALOTYPE_CHROMIUM, then on PATH, and only then installs Debian's package. It knows nothing
of Playwright, which is merely told where the browser lies.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests import debian

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class NoBrowserError(RuntimeError):
    """There is no Chromium, and none can be installed here; the message says what to do."""


def find() -> str | None:
    """Path of a Chromium, or None; raise NoBrowserError if CALOTYPE_CHROMIUM names no program."""
    told = os.environ.get("CALOTYPE_CHROMIUM")
    if told:
        if not os.access(told, os.X_OK) or Path(told).is_dir():
            raise NoBrowserError(f"CALOTYPE_CHROMIUM is {told}, which is not a program.")
        return told
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def install() -> str:
    """Install Debian's ``chromium`` and return its path; raise NoBrowserError if that can't be."""
    try:
        debian.install("chromium", "Chromium")
    except debian.NotInstalledError as error:
        raise NoBrowserError(str(error)) from error
    path = find()
    if path is None:
        raise NoBrowserError("apt-get installed chromium, but no chromium is on PATH.")
    return path


def main() -> int:
    """Find or install; print the path. Exit code 1 and what to do where neither works."""
    try:
        print(find() or install())
    except NoBrowserError as error:
        print(
            f"{error}\nInstall Chromium or Chrome yourself, and put it on PATH or set "
            "CALOTYPE_CHROMIUM to its path. Only the tests of the page need it.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
