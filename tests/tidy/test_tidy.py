"""What import-linter and ruff can't see: sizes, clocks, the environment, docs."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "calotype"
BENCHMARKS = ROOT / "benchmarks"
MODULES = sorted(
    [
        *SRC.rglob("*.py"),
        *(ROOT / "training").rglob("*.py"),
        *BENCHMARKS.glob("*.py"),  # not in its cache, where others' code lies
        *(BENCHMARKS / "peers").glob("*.py"),
        *(BENCHMARKS / "stand_in").glob("*.py"),
    ]
)
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
PURE = ("core", "policy")
CLOCKS = {"time", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
NAMED = re.compile(r"`([\w/]+\.py)`|(?<!`)\b([a-z0-9]+(?:_[a-z0-9]+)+)")  # a file, or a test in it
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_fits_a_head(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    for function in functions(ast.parse(text)):
        # A signature may be long: of a command, it is one line a flag.
        lines = (function.end_lineno or 0) - function.body[0].lineno + 1
        assert lines <= FUNCTION_LINES_MAX, f"{function.name} has {lines} lines"


def test_a_file_of_tests_fits_a_head_too() -> None:
    lines = {name(it): len(it.read_text().splitlines()) for it in (ROOT / "tests").rglob("*.py")}
    assert {it: count for it, count in lines.items() if count > MODULE_LINES_MAX} == {}


@pytest.mark.parametrize(
    "room", [path for path in sorted(SRC.iterdir()) if path.is_dir()], ids=name
)
def test_a_room_says_what_it_is_for(room: Path) -> None:
    if not any(room.rglob("*.py")):
        return  # data: the page, the models
    doc = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert doc is not None
    assert len(doc.split()) >= 10


def clock_readings(source: str) -> set[str]:
    """How a module gets at a clock: by importing all or a part of ``time``, or calling a "now"."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names if alias.name == "time"}
            case ast.ImportFrom(module="time", names=names):
                found |= {f"time.{alias.name}" for alias in names}
            case ast.Call(func=function):
                called = ast.unparse(function)
                found |= {clock for clock in CLOCKS if f".{called}".endswith(f".{clock}")}
    return found


@pytest.mark.parametrize("path", [path for path in MODULES if path.is_relative_to(SRC)], ids=name)
def test_pure_rooms_read_no_clock(path: Path) -> None:
    room = path.relative_to(SRC).parts[0]
    if room not in PURE or path.name == "ids.py":  # an id begins with the time it was made
        return
    assert not clock_readings(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import time as clock",
        "from time import monotonic",
        "from time import perf_counter as now",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.utcnow()",
    ],
)
def test_every_way_to_a_clock_is_seen(source: str) -> None:
    assert clock_readings(source)


def test_the_environment_is_read_in_few_places() -> None:
    allowed = {"settings", "cli", "engine", "pool"}  # pool hands it on to engines
    readers = {
        path.relative_to(SRC).parts[0]
        for path in SRC.rglob("*.py")
        if re.search(r"os\.(environ|getenv)", path.read_text())
    }
    assert readers <= allowed


def test_nothing_is_left_to_do_in_a_comment() -> None:
    marks = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")
    left = [name(path) for path in MODULES if marks.search(path.read_text())]
    assert not left


def test_the_page_fetches_nothing_from_elsewhere() -> None:
    pages = [
        path for kind in ("*.html", "*.css", "*.js", "*.svg") for path in (SRC / "web").rglob(kind)
    ]
    assert pages
    for path in pages:
        hosts = set(re.findall(r"https?://([^/\"'\s)]+)", path.read_text()))
        assert hosts <= {"www.w3.org"}, name(path)  # the name of SVG's namespace


def test_every_setting_is_described() -> None:
    from calotype.settings import Settings

    for setting, field in Settings.model_fields.items():
        assert field.description, setting


def test_the_readme_names_commands_that_exist() -> None:
    from typer.main import get_command

    from calotype.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"\.venv/bin/calotype (\w+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= known


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_a_page_names_make_targets_that_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"```.*?```|`[^`]+`", (ROOT / page).read_text(), re.DOTALL)
    named = {target for part in code for target in re.findall(r"\bmake ([a-z]+)", part)}
    assert named
    assert named <= targets


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout of the repository")
@pytest.mark.parametrize("page", PAGES)
def test_a_pages_links_lead_to_tracked_files(page: str) -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text())
    relative = {link.partition("#")[0] for link in links if "://" not in link} - {""}
    missing = relative - set(tracked)
    assert not missing


def test_files_of_tests_that_are_named_for_their_order_are_there() -> None:
    from tests.conftest import GROUPS, LONGEST

    named = [*GROUPS, *(it for it in LONGEST if it not in GROUPS.values())]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", ["provenance.md", "safety.md"])
def test_a_table_of_what_is_tested_names_tests_that_exist(page: str) -> None:
    """In it a file of tests in backticks is followed by its functions, without their ``test_``."""
    told = (ROOT / "docs" / page).read_text().partition("\n## What is tested where\n")[2]
    rows = [line for line in told.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    missing: list[str] = []
    there, path = set[str](), ""
    for file, test in re.findall(NAMED, "\n".join(rows)):
        if file:
            path = file
            tree = ast.parse((ROOT / "tests" / path).read_text())
            there = {it.name for it in functions(tree)}
        elif f"test_{test}" not in there:
            missing.append(f"{path}: {test}")
    assert path
    assert missing == []
    runs = re.findall(r"`benchmarks\.(\w+)`", "\n".join(rows))
    assert [it for it in runs if not (BENCHMARKS / f"{it}.py").exists()] == []


def test_versions_agree() -> None:
    from calotype import __version__

    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_each_package_is_pinned_in_one_place() -> None:
    """Two pins of one package part one day, and the benchmark can't be installed any more."""

    def pinned(path: Path) -> set[str]:
        lines = [line.partition("==")[0] for line in path.read_text().splitlines() if "==" in line]
        return {re.sub(r"[-_.]+", "-", line).lower() for line in lines}

    twice = pinned(ROOT / "constraints.txt") & pinned(BENCHMARKS / "requirements.txt")
    assert not twice
