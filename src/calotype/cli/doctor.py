"""``calotype doctor``: what this machine can run, what is missing, and how to get it.

Looks without loading: no torch, no model, no server is started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from calotype.cli.console import FAILED, AsJson, Home, print_json, print_table
from calotype.core.errors import OperatorError

if TYPE_CHECKING:
    from calotype.settings import Settings

_MEMORY_BYTES_MIN = 2 * 2**30  # server, engine with torch, two finishing processes
_DISK_BYTES_MIN = 2**30
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    is_ok: bool
    is_required: bool
    found: str  # what is there
    remedy: str = ""  # how to get it, if it isn't


def doctor(*, as_json: AsJson = False, home: Home = None) -> None:
    """Say what this machine can run, what is missing, and how to get it."""
    findings = examine(home)
    is_ok = all(finding.is_ok for finding in findings if finding.is_required)
    if as_json:
        print_json({"ok": is_ok, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    if not is_ok:
        raise typer.Exit(FAILED)


def examine(home: Path | None) -> list[Finding]:
    """Look at everything; the order is that of the printed table."""
    from calotype.settings import Settings

    findings = [
        _python(),
        _package("torch", "make setup"),
        _package("diffusers", "make setup"),
        _cores(),
        _memory(),
        _embedded_model(),
        _gpu(),
        _browser(),
    ]
    try:
        settings = Settings(home=home)
    except OperatorError as error:  # wrong settings are a finding; what hangs on them has to wait
        return [*findings, Finding("settings", False, True, error.detail, "correct or unset it")]
    good = Finding("settings", True, True, "each is known and has a value it may have")
    places = [_disk(settings.home), _home(settings.home), _models(settings), _port(settings)]
    return [*findings, good, *places]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), True, version, "install Python 3.11")


def _package(name: str, remedy: str) -> Finding:
    try:
        return Finding(name, True, True, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, False, True, "not installed", remedy)


def _cores() -> Finding:
    # Linux says what this process may use, macOS only what there is.
    has_affinity = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    return Finding("cores", True, True, str(count or "unknown"))


def _memory() -> Finding:
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page
    found = f"{total / 2**30:.1f} GiB"
    if "SC_AVPHYS_PAGES" in os.sysconf_names:  # not on macOS
        found += f", {os.sysconf('SC_AVPHYS_PAGES') * page / 2**30:.1f} free"
    remedy = "2 GiB are needed for the embedded model"
    return Finding("memory", total >= _MEMORY_BYTES_MIN, True, found, remedy)


def _disk(home: Path) -> Finding:
    free = shutil.disk_usage(_nearest(home)).free
    remedy = "free 1 GiB, or put the home folder elsewhere (CALOTYPE_HOME)"
    return Finding("disk", free >= _DISK_BYTES_MIN, True, f"{free / 2**30:.1f} GiB free", remedy)


def _home(home: Path) -> Finding:
    is_ok = os.access(_nearest(home), os.W_OK | os.X_OK)
    remedy = "choose a folder you may write to with CALOTYPE_HOME or --home"
    return Finding("home", is_ok, True, str(home), remedy)


def _models(settings: Settings) -> Finding:
    """Looks at headers and sizes, and hashes nothing: that is for ``calotype models verify``."""
    from calotype.pool.catalogue import Catalogue

    name, remedy = "models", "see calotype models list; what was changed has to be added anew"
    catalogue = Catalogue(settings.models_folder, settings.home, is_quick=True)
    try:
        catalogue.scan()
    except OperatorError as error:
        return Finding(name, False, False, error.detail, remedy)
    broken = [f"{each}: {reason}" for each, reason in catalogue.broken().items()]
    found = f"{len(catalogue.models.list())} that can be used"
    if broken:
        found = "; ".join([found, f"{len(broken)} that can't", *broken])
    return Finding(name, not broken, False, found, remedy)


def _port(settings: Settings) -> Finding:
    from calotype.cli.servers import find_url, is_alive, is_port_free

    name, place = "port", f"{settings.host}:{settings.port}"
    if is_port_free(settings.host, settings.port):
        return Finding(name, True, False, f"{place} is free")
    url = find_url(settings)
    if url and is_alive(url):
        return Finding(name, True, False, f"Calotype runs at {url}")
    return Finding(name, False, False, f"{place} is taken", "choose another: CALOTYPE_PORT")


def _embedded_model() -> Finding:
    import calotype

    folder = Path(calotype.__file__).parent / "models" / "vignette"
    weights = sorted(folder.rglob("*.safetensors"))
    is_ok = (folder / "model_index.json").is_file() and bool(weights)
    size = sum(path.stat().st_size for path in weights)
    found = f"vignette, {size / 1e6:.1f} MB" if is_ok else f"not in {folder}"
    return Finding("embedded model", is_ok, True, found, "install Calotype again: make setup")


def _gpu() -> Finding:
    remedy = "not needed: the embedded model draws on the CPU"
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("gpu", False, False, "no nvidia-smi", remedy)
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("gpu", False, False, f"nvidia-smi fails: {error}", "check its driver")
    return Finding("gpu", True, False, "; ".join(answer.stdout.strip().splitlines()))


def _browser() -> Finding:
    path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    remedy = "only the tests of the page need it: make browser"
    return Finding("chromium", path is not None, False, path or "not installed", remedy)


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())


def _print(findings: list[Finding]) -> None:
    rows = []
    for each in findings:
        state = "ok" if each.is_ok else "MISSING" if each.is_required else "missing (optional)"
        rows.append((each.name, state, each.found, "" if each.is_ok else each.remedy))
    print_table(("what", "state", "found", "how to get it"), rows)
