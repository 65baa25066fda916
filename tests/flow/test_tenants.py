"""``calotype tenants`` without a server: budgets are set, shown, changed in part and taken away."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from calotype.cli import app
from calotype.core.errors import InvalidInput


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [name for name in os.environ if name.startswith("CALOTYPE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CALOTYPE_HOME", str(tmp_path))
    umask = os.umask(0o077)
    yield tmp_path
    os.umask(umask)  # commands set their own


def tenants(*arguments: str) -> list[dict[str, Any]]:
    answer = CliRunner().invoke(app, ["tenants", *arguments, "--json"], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    found: list[dict[str, Any]] = json.loads(answer.output)["tenants"]
    return found


def test_a_budget_is_set_shown_changed_in_part_and_taken_away() -> None:
    CliRunner().invoke(app, ["keys", "create", "--tenant", "ada", "--user", "ann"])
    none = {"fast_seconds_per_month": None, "when_spent": None, "used_s": None}
    assert tenants() == [{"tenant": "ada", **none, "left_s": None, "renews_at": None}]
    [made] = tenants("set", "bob", "--fast-seconds-per-month", "7200")
    assert (made["fast_seconds_per_month"], made["when_spent"]) == (7200, "refuse")
    assert (made["used_s"], made["left_s"], made["renews_at"]) == (0, 7200, None)
    [changed] = tenants("set", "bob", "--when-spent", "relax")
    assert (changed["fast_seconds_per_month"], changed["when_spent"]) == (7200, "relax")
    [changed] = tenants("set", "bob", "--fast-seconds-per-month", "60")
    assert (changed["fast_seconds_per_month"], changed["when_spent"]) == (60, "relax")
    assert [one["tenant"] for one in tenants()] == ["ada", "bob"]
    [free] = tenants("set", "bob", "--unlimited")
    assert free["fast_seconds_per_month"] is None
    assert [one["tenant"] for one in tenants()] == ["ada"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("ada",), "fast_seconds_per_month"),
        (("ada", "--when-spent", "relax"), "fast_seconds_per_month"),
        (("ada", "--fast-seconds-per-month", "-1"), "fast_seconds_per_month"),
        (("ada", "--fast-seconds-per-month", "inf"), "fast_seconds_per_month"),
        (("ada", "--fast-seconds-per-month", "1", "--when-spent", "cry"), "when_spent"),
        (("", "--fast-seconds-per-month", "1"), "tenant"),
    ],
)
def test_what_can_not_be_set_names_field_and_limit(arguments: tuple[str, ...], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        tenants("set", *arguments)
    assert refused.value.field == field
    assert refused.value.limit is not None
    assert tenants() == []


def test_unlimited_stands_alone() -> None:
    answer = CliRunner().invoke(
        app, ["tenants", "set", "ada", "--unlimited", "--when-spent", "relax"]
    )
    assert answer.exit_code == 2
