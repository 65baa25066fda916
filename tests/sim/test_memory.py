"""``calotype plan memory``: a ledger filled by hand, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calotype.cli import app
from calotype.core.errors import InvalidInput
from calotype.sim.memory import device_bytes, plan

RUNNER = CliRunner()
A100 = ("--part", "base=10", "--part", "encoders=4", "--part", "vae=2")


def told(*arguments: str) -> tuple[int, str]:
    done = RUNNER.invoke(app, ["plan", "memory", *arguments])
    if isinstance(done.exception, InvalidInput):
        return 2, done.exception.detail
    return done.exit_code, done.stdout


def test_the_example_of_an_a100_is_printed() -> None:
    code, text = told(*A100)
    assert code == 0
    assert "A100-80GB: 40.00 of 80 GB" in text
    lines = dict(line.split()[:2] for line in text.splitlines() if len(line.split()) == 3)
    assert (lines["base"], lines["ControlNet"]) == ("10.00", "4.00")


def test_what_models_share_is_counted_once() -> None:
    code, text = told("--model", "sd3", "--model", "flux", "--json", "--home", "/nonexistent")
    found = json.loads(text)
    assert code == 0
    assert found["models"]["flux"]["adds_bytes"] == 24_000_000_000, "T5 and CLIP are there"
    assert sum(found["lines"].values()) == found["used_bytes"]
    assert found["used_bytes"] + found["free_bytes"] == found["budget_bytes"]


def test_a_model_of_ones_own_and_its_adapters_are_counted(tmp_path: Path) -> None:
    code, text = told(
        "--model", "vignette", "--lora", "vignette-lcm", "--json", "--home", str(tmp_path)
    )
    found = json.loads(text)
    assert code == 0
    assert 0 < found["lines"]["base"] < 100_000_000
    assert found["lines"]["LoRA"] == 2_000_000_000, "no less than is kept for any"


def test_what_does_not_fit_ends_with_1() -> None:
    code, text = told(*A100, "--device", "24GB", "--json")
    assert code == 1
    assert json.loads(text)["free_bytes"] == -16_000_000_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "at least one --model or --part"),
        (("--part", "base"), "--part 'base' is no name=GB"),
        (("--part", "base=-1"), "part base must be from 0 to 10,000 GB, not -1"),
        ((*A100, "--latents-gb", "nan"), "latents-gb must be from 0"),
        ((*A100, "--device", "abacus"), "'abacus' is none of A100-80GB"),
        (("--model", "nobody"), "nobody"),
        ((*A100, "--lora", "vignette-lcm", "--lora-gb", "0"), "more than --lora-gb 0"),
    ],
)
def test_wrong_input_is_refused_by_name(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    code, text = told(*arguments, "--home", str(tmp_path))
    assert (code, says in text) == (2, True), text


def test_a_device_is_named_or_a_size() -> None:
    assert device_bytes("A10G") == device_bytes("24GB") == device_bytes("24 GB") == 24 * 10**9
    with pytest.raises(InvalidInput) as raised:
        device_bytes("99999GB")
    assert raised.value.field == "device"
    assert raised.value.limit == {"min": 0, "max": 10_000.0}
    assert plan([], {}, 10)["fits"]
