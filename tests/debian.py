"""Installs a Debian package that tests need, where this machine can.

It knows apt-get and what can go wrong with it, and nothing of what the package is for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

INSTALL_S_MAX = 900.0  # a slow mirror may take this long


class NotInstalledError(RuntimeError):
    """It isn't here and can't be installed here; the message says why, in sentences."""


def install(package: str, what: str) -> None:
    """Install ``package``, which is ``what`` is missing; raise NotInstalledError if it can't be."""
    apt, sudo = shutil.which("apt-get"), shutil.which("sudo")
    if apt is None:
        raise NotInstalledError(f"No {what} was found, and this machine has no apt-get.")
    if os.geteuid() != 0 and sudo is None:
        raise NotInstalledError(f"No {what} was found, and installing it needs root or sudo.")
    prefix = [] if os.geteuid() == 0 else [str(sudo), "--non-interactive"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print(f"Installing Debian's {package} (once, about a minute) ...", flush=True)
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", package]):
        command = [*prefix, apt, "-qq", *arguments]
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=INSTALL_S_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotInstalledError(f"`{' '.join(command)}` took too long.") from None
        # A failed update may leave old lists that still serve; a failed install is the end.
        if done.returncode and arguments[0] == "install":
            said = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise NotInstalledError(f"`{' '.join(command)}` failed: {' '.join(said)}")


def ready(find: Callable[[], object], package: str, what: str, why: str) -> int:
    """Find it or install it, and print where; 1, and what to do, where neither works."""
    try:
        if find() is None:
            install(package, what)
        print(find() or f"{what} was installed, and is nowhere to be found.")
    except NotInstalledError as error:
        print(f"{error}\nInstall {what} yourself: {why}", file=sys.stderr)
    return 0 if find() else 1
