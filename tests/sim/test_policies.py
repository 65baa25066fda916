"""The side by side of docs/line.md: one command makes its table and plot, the same each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.policies import ROOT
from calotype.sim.baselines import POLICIES
from tests.sim.test_inputs import HEADER

BEGIN, END = "<!-- policies -->\n", "<!-- /policies -->"


def side_by_side(folder: Path) -> subprocess.CompletedProcess[str]:
    trace = folder / "trace.csv"
    rows = [
        f"2024-11-15 18:{at // 60:02}:{at % 60:02},T,SUCCEED,30,G{at % 40},9,,1,30,M{at % 3},1"
        for at in range(400)
    ]
    trace.write_text("\n".join([HEADER, *rows]) + "\n")
    command = [sys.executable, "-m", "benchmarks.policies", "--gentd26", str(trace)]
    places = ["--docs", str(folder), "--results", str(folder / "results"), "--images", "400"]
    return subprocess.run(
        [*command, *places], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )


def test_one_command_makes_table_and_plot_and_the_same_each_time(tmp_path: Path) -> None:
    page, plot = tmp_path / "line.md", tmp_path / "line.svg"
    page.write_text(f"before\n{BEGIN}old{END}\nafter\n")
    done = side_by_side(tmp_path)
    assert done.returncode == 0, done.stderr
    first = page.read_text(), plot.read_text()
    table = first[0].removeprefix(f"before\n{BEGIN}").removesuffix(f"{END}\nafter\n").splitlines()
    assert len(table) == 2 + 4 * len(POLICIES)
    assert len({row.count("|") for row in table}) == 1
    names = {each.tag.rpartition("}")[2] for each in ElementTree.fromstring(first[1]).iter()}
    assert names == {"svg", "title", "style", "rect", "text", "tspan", "line", "circle"}
    side_by_side(tmp_path)
    assert (page.read_text(), plot.read_text()) == first


def test_the_page_of_the_line_has_its_table_and_plot() -> None:
    page = (ROOT / "docs" / "line.md").read_text()
    table = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    assert len(table) == 2 + 4 * len(POLICIES)
    assert "](line.svg)" in page


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "line.md").write_text("nothing\n")
    done = side_by_side(tmp_path)
    assert done.returncode == 1
    assert "has no <!-- policies -->" in done.stderr
    assert (tmp_path / "line.md").read_text() == "nothing\n"
