"""The tables of fleets and spot machines in docs/line.md: one command makes them, and the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.marks import fill
from benchmarks.scale import ROOT, fleet_table, main, spot_table

PAGE = "before\n<!-- scale -->\nold<!-- /scale -->\n<!-- spot -->\n<!-- /spot -->\nafter\n"


def between(page: str, mark: str) -> str:
    return page.partition(f"<!-- {mark} -->\n")[2].partition(f"<!-- /{mark} -->")[0]


def test_one_command_makes_the_tables_and_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "line.md"
    page.write_text(PAGE)
    places = ["--docs", str(tmp_path), "--results", str(tmp_path), "--images", "300"]
    monkeypatch.setattr(sys, "argv", ["scale", *places])
    main()
    first = page.read_text()
    assert first.startswith("before\n<!-- scale -->\n| fleet |")
    assert first.endswith("<!-- /spot -->\nafter\n")
    assert len(between(first, "scale").splitlines()) == 2 + 3
    assert len(between(first, "spot").splitlines()) == 2 + 6
    main()
    assert page.read_text() == first


def test_the_page_has_the_tables_of_the_results() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "scale.json").read_text())
    page = (ROOT / "docs" / "line.md").read_text()
    assert between(page, "scale") == fleet_table(found["fleets"])
    of_spot = {"Images of 7 s": found["spot"], "Images of 70 s": found["spot, long"]}
    assert between(page, "spot") == spot_table(of_spot)


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "line.md").write_text("nothing\n")
    with pytest.raises(SystemExit, match="has no <!-- scale -->"):
        fill(tmp_path / "line.md", "scale", "table\n")
    assert (tmp_path / "line.md").read_text() == "nothing\n"
