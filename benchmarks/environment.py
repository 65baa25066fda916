"""The benchmark's own virtual environment: other servers bring a lot that Calotype doesn't need."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from calotype.cli.console import say
from calotype.core.errors import OperatorError

ROOT = Path(__file__).parents[1]
CACHE = Path(__file__).parent / ".cache"  # git-ignored: environment and models
_VENV = CACHE / "venv"
_REQUIREMENTS, _CONSTRAINTS = ROOT / "benchmarks" / "requirements.txt", ROOT / "constraints.txt"
_PINS = (_REQUIREMENTS, _CONSTRAINTS, ROOT / "pyproject.toml")


def python() -> Path:
    """The environment's Python, made once for each state of the pins.

    torch and all else that Calotype uses have the versions of constraints.txt there, too. Raises
    OperatorError when installing fails.
    """
    stamp = _VENV / ".ready"
    state = hashlib.sha256(b"".join(path.read_bytes() for path in _PINS)).hexdigest()
    found = _VENV / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == state:
        return found
    say(f"making the benchmark's environment in {_VENV} (once, about 2 minutes) ...")
    _run(sys.executable, "-m", "venv", "--clear", str(_VENV))
    wanted = ("--requirement", str(_REQUIREMENTS), "--editable", str(ROOT))
    quiet = ("--quiet", "--disable-pip-version-check", "--constraint", str(_CONSTRAINTS))
    _run(str(found), "-m", "pip", "install", *quiet, *wanted)
    stamp.write_text(state)
    return found


def _run(*command: str) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip()[-1000:]
        raise OperatorError(f"{' '.join(command[:4])} ... failed: {said}")
