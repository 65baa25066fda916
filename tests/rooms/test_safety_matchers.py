"""Plug-ins that know pictures: found by name, asked of every picture, and never a pass by failing.

The example is a real package on the path, with an entry point, as an operator would install one.
"""

from __future__ import annotations

import importlib
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calotype.core.errors import OperatorError
from calotype.core.nouns import VerdictKind
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.matchers import GROUP, MatcherUse
from calotype.safety.pictures import PictureCheck
from calotype.safety.setup import SafetySetup
from tests.rooms.test_safety_pictures import FINE, SETUP, canary
from tests.rooms.test_safety_policies import setup

EXAMPLE = '''
import numpy as np

LEVEL, NOTHING = 128.0, 7.0


class ByBrightness:
    """Knows one picture, by how bright it is; the darkest it can't hash."""

    version = "1"

    def distance(self, pixels):
        mean = float(pixels.mean())
        if mean < NOTHING:
            return None
        return ANSWER(abs(mean - LEVEL))


def broken():
    raise RuntimeError("no licence")


class Unversioned:
    def distance(self, pixels):
        return 0.0
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example, whose answer is what the plug-in's file says."""
    package = tmp_path / "site"
    about = package / "example_matcher-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: example-matcher\nVersion: 1.0\n")
    points = {"brightness": "ByBrightness", "broken": "broken", "unversioned": "Unversioned"}
    lines = [f"{name} = example_matcher:{what}" for name, what in points.items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    monkeypatch.syspath_prepend(str(package))
    return package


def judge(
    package: Path, monkeypatch: pytest.MonkeyPatch, answer: str = "lambda found: found"
) -> PictureCheck:
    (package / "example_matcher.py").write_text(textwrap.dedent(EXAMPLE) + f"\nANSWER = {answer}\n")
    monkeypatch.delitem(sys.modules, "example_matcher", raising=False)
    importlib.invalidate_caches()
    return PictureCheck(setup=replace(SETUP, matchers=(MatcherUse("brightness", 10.0),)))


def lit(mean: float) -> np.ndarray:
    """A picture of that brightness, with something in it to see."""
    pixels = canary(size=64).astype(np.float64)
    pixels += mean - pixels.mean()
    half = (pixels - pixels.mean()) * min(mean, 255 - mean) / 160 + mean
    clipped: np.ndarray = np.clip(half, 0, 255).astype(np.uint8)
    return clipped


def test_what_a_plug_in_knows_is_blocked_and_the_plug_in_named(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = judge(installed, monkeypatch)
    known = check.judge(lit(128), FINE)
    assert (known.category, known.check) == ("known", "known:brightness")
    assert known.score is not None
    assert 0.5 <= known.score <= 1.0
    assert check.judge(lit(200), FINE).kind is VerdictKind.ALLOW
    assert check.judge_input(lit(128)).category == "known"
    assert check.judge_input(lit(200)).kind is VerdictKind.ALLOW


def test_what_it_cannot_hash_is_blocked_and_not_called_unknown(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = judge(installed, monkeypatch, "lambda found: None")
    for verdict in (check.judge(lit(200), FINE), check.judge_input(lit(200))):
        assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "unjudgeable")
        assert verdict.check == "brightness"


@pytest.mark.parametrize(
    "answer",
    ["float('nan')", "-1.0", "'far'", "True and [1.0]", "1 / 0", "{}['gone']"],
)
def test_an_answer_that_is_none_holds_the_picture(
    installed: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    check = judge(installed, monkeypatch, f"lambda found: {answer}")
    with pytest.raises(SafetyUnavailable):
        check.judge(lit(200), FINE)
    with pytest.raises(SafetyUnavailable):
        check.judge_input(lit(200))


def test_an_infinite_distance_is_an_answer(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = judge(installed, monkeypatch, "lambda found: float('inf')")
    assert check.judge(lit(128), FINE).kind is VerdictKind.ALLOW


def test_verdicts_name_the_plug_ins_version(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judge(installed, monkeypatch).version != PictureCheck(setup=SETUP).version


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent", "no installed package"),
        ("broken", "no licence"),
        ("unversioned", "has no version"),
    ],
)
def test_a_plug_in_that_is_not_there_is_found_at_the_start(
    installed: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    judge(installed, monkeypatch)
    with pytest.raises(OperatorError, match=says) as raised:
        PictureCheck(setup=replace(SETUP, matchers=(MatcherUse(name, 1.0),)))
    assert raised.value.field == f"matchers.{name}"


def test_plug_ins_are_named_in_the_file(tmp_path: Path) -> None:
    found: SafetySetup = setup(tmp_path, "[matchers.brightness]\ndistance_max = 10.0")
    assert found.matchers == (MatcherUse("brightness", 10.0),)
    with pytest.raises(OperatorError, match="distance_max"):
        setup(tmp_path, "[matchers.brightness]\ndistance_max = nan")
