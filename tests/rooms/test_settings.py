"""Settings: who wins, where things lie, and what a mistake is told."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core.errors import OperatorError
from calotype.core.nouns import Tier
from calotype.flow.platform import Platform
from calotype.flow.rules import admit_rules, line_rules
from calotype.policy.admit import AdmitRules, TierLimits
from calotype.policy.rules import Rules
from calotype.settings import OTHER_VARIABLES, Settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("CALOTYPE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CALOTYPE_HOME", str(tmp_path))
    return tmp_path


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings().port == 8000
    (home / "calotype.toml").write_text("port = 1001\nengines = 2")
    assert Settings().port == 1001
    monkeypatch.setenv("CALOTYPE_PORT", "1002")
    assert Settings().port == 1002
    assert Settings(port=1003).port == 1003
    assert Settings(port=1003).engines == 2


def test_a_flag_that_is_none_was_not_given() -> None:
    assert Settings(port=None, blocklist=None).port == 8000


def test_everything_lies_below_the_home_folder_unless_it_is_set(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "b")
    assert settings.models_folder == tmp_path / "b" / "models"
    assert settings.database == f"sqlite+aiosqlite:///{tmp_path}/b/calotype.db"
    for path in (settings.pictures_folder, settings.secrets_folder, settings.key_path):
        assert path.parent == tmp_path / "b"
    assert Settings(database_url="sqlite+aiosqlite:///x.db").database.endswith("/x.db")


def test_the_flag_home_decides_which_file_is_read(home: Path, tmp_path: Path) -> None:
    (home / "calotype.toml").write_text("port = 1001")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "calotype.toml").write_text("port = 1002")
    assert Settings(home=tmp_path / "other").port == 1002


def test_calotype_config_names_another_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "calotype.toml").write_text("port = 1001")
    (tmp_path / "team.toml").write_text("port = 1002")
    monkeypatch.setenv("CALOTYPE_CONFIG", str(tmp_path / "team.toml"))
    assert Settings().port == 1002
    monkeypatch.setenv("CALOTYPE_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(OperatorError, match=r"none\.toml, and there is no such file"):
        Settings()


def test_an_unknown_key_of_the_file_is_an_error_that_names_it(home: Path) -> None:
    (home / "calotype.toml").write_text("prot = 1001")
    with pytest.raises(OperatorError, match="prot") as caught:
        Settings()
    assert caught.value.field == "prot"
    assert "port" in caught.value.limit


def test_a_broken_file_is_an_error_that_names_it(home: Path) -> None:
    (home / "calotype.toml").write_text("port = = 1")
    with pytest.raises(OperatorError, match=r"calotype\.toml can't be read"):
        Settings()


def test_an_error_names_the_setting_and_where_it_came_from(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OperatorError, match=r"port \(flag --port\)") as caught:
        Settings(port=99999)
    assert caught.value.extra["source"] == "flag"
    (home / "calotype.toml").write_text('log_format = "loud"')
    with pytest.raises(OperatorError, match=r"log_format .*calotype\.toml") as caught:
        Settings()
    assert caught.value.extra["source"] == "file"
    monkeypatch.setenv("CALOTYPE_LOG_FORMAT", "louder")
    with pytest.raises(OperatorError, match="CALOTYPE_LOG_FORMAT") as caught:
        Settings()
    assert caught.value.field == "log_format"
    assert caught.value.extra["source"] == "environment"


def test_an_unknown_variable_is_an_error_that_names_it_and_what_was_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CALOTYPE_PROT", "1001")
    with pytest.raises(OperatorError, match=r"CALOTYPE_PROT.*did you mean CALOTYPE_PORT") as caught:
        Settings()
    assert caught.value.field == "CALOTYPE_PROT"
    assert "CALOTYPE_PORT" in caught.value.limit
    monkeypatch.setenv("CALOTYPE_PROT", "")
    assert Settings().port == 8000


def test_variables_that_are_no_settings_but_have_a_use_are_let_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in set(OTHER_VARIABLES) - {"CALOTYPE_CONFIG"}:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("CALOTYPE_ENGINE_THREADS", "1")
    assert Settings().engine_threads == 1


def test_every_setting_says_what_it_is_for() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


# By tier.


def test_a_value_for_each_tier_is_text_or_a_table(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "calotype.toml").write_text(
        'jobs_per_minute = "fast=30"\nweights.turbo = 20\n[reserved]\nturbo = 0.25\nrelax = 0.1\n'
    )
    settings = Settings()
    assert settings.weights == {Tier.TURBO: 20, Tier.FAST: 5, Tier.RELAX: 1}
    assert settings.reserved == {Tier.TURBO: 0.25, Tier.RELAX: 0.1}
    assert settings.jobs_per_minute == {Tier.FAST: 30.0}
    monkeypatch.setenv("CALOTYPE_WEIGHTS", "fast=7, relax=2")
    assert Settings().weights == {Tier.TURBO: 10, Tier.FAST: 7, Tier.RELAX: 2}
    assert Settings(weights="turbo=3").weights[Tier.TURBO] == 3


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("weights", "turbo=0", r"weights\.turbo .*greater than or equal to 1"),
        ("weights", "turbo=1.5", r"weights\.turbo"),
        ("weights", "slow=1", r"weights\.slow .*'turbo', 'fast' or 'relax'"),
        ("weights", "10:5:1", "turbo=10,fast=5,relax=1"),
        ("weights", "fast=1,fast=2", "each tier once"),
        ("reserved", "turbo=1.5", r"reserved\.turbo .*less than or equal to 1"),
        ("reserved", "turbo=nan", r"reserved\.turbo"),
        ("relax_share_min", "-0.1", "relax_share_min .*greater than or equal to 0"),
        ("relax_wait_s_max", "0", "relax_wait_s_max .*greater than 0"),
        ("affinity_passes_max", "-1", "affinity_passes_max .*greater than or equal to 0"),
        ("affinity_s_max", "inf", "affinity_s_max .*finite"),
        ("jobs_per_minute", "fast=0", r"jobs_per_minute\.fast .*greater than 0"),
        ("jobs_at_once", "fast=0", r"jobs_at_once\.fast .*greater than or equal to 1"),
        ("unfinished_jobs_max", "fast=few", r"unfinished_jobs_max\.fast .*integer"),
    ],
)
def test_a_value_that_may_not_be_names_the_setting_the_tier_and_the_bound(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"CALOTYPE_{name.upper()}", value)
    with pytest.raises(OperatorError, match=told) as caught:
        Settings()
    assert caught.value.field == name
    assert caught.value.extra["source"] == "environment"


def test_a_bound_is_told_apart_from_the_sentence() -> None:
    with pytest.raises(OperatorError) as caught:
        Settings(port=99999)
    assert caught.value.limit == {"le": 65535}


# What settings say together.


def test_settings_become_the_rules_of_the_line_and_of_admission() -> None:
    settings = Settings(
        weights="turbo=4", reserved="turbo=0.5", relax_wait_s_max=60, relax_share_min=0.1,
        affinity_passes_max=3, affinity_s_max=2, jobs_per_minute="fast=30", jobs_at_once="fast=5",
        unfinished_jobs_max="relax=7", queued_jobs_max=9, queued_jobs_per_tenant_max=8,
    )  # fmt: skip
    line, admit = line_rules(settings), admit_rules(settings)
    assert line.weights == admit.weights == {Tier.TURBO: 4, Tier.FAST: 5, Tier.RELAX: 1}
    assert line.reserved == {Tier.TURBO: 0.5}
    assert (line.wait_s_max, line.floors) == ({Tier.RELAX: 60}, {Tier.RELAX: 0.1})
    assert (line.affinity_passes_max, line.affinity_s_max) == (3, 2)
    assert admit.tiers[Tier.FAST] == TierLimits(jobs_per_minute=30, burst=5)
    assert admit.tiers[Tier.RELAX] == TierLimits(unfinished_max=7)
    assert (admit.queued_max, admit.queued_per_tenant_max) == (9, 8)


def test_left_alone_they_are_the_rules_own_defaults() -> None:
    settings = Settings()
    assert line_rules(settings) == Rules()
    assert admit_rules(settings) == AdmitRules(tiers=dict.fromkeys(Tier, TierLimits()))


def test_more_than_there_is_can_not_be_promised() -> None:
    with pytest.raises(OperatorError, match="104% of the devices") as caught:
        line_rules(Settings(reserved="turbo=0.6,fast=0.39"))
    assert (caught.value.field, caught.value.limit) == ("reserved", 1.0)


def test_a_burst_needs_a_rate() -> None:
    with pytest.raises(OperatorError, match="turbo has no jobs_per_minute") as caught:
        admit_rules(Settings(jobs_at_once="turbo=2", jobs_per_minute="fast=3"))
    assert (caught.value.field, caught.value.limit) == ("jobs_at_once", ["fast"])


def test_the_readmes_settings_are_settings_and_where_it_says_so_their_defaults(home: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    [block] = [each for each in readme.split("```")[1::2] if "relax_wait_s_max" in each]
    (home / "calotype.toml").write_text(block)
    settings, plain = Settings(), Settings(home=home / "elsewhere")
    assert line_rules(settings).reserved == {Tier.TURBO: 0.2}
    assert replace(line_rules(settings), reserved={}) == line_rules(plain)
    assert admit_rules(settings).queued_max == admit_rules(plain).queued_max
    assert admit_rules(settings).tiers[Tier.FAST] == TierLimits(jobs_per_minute=30, burst=10)


def test_a_platform_refuses_them_before_anything_is_opened(home: Path) -> None:
    with pytest.raises(OperatorError, match="promised"):
        asyncio.run(Platform.start(Settings(reserved="turbo=0.99")))
    assert not (home / "calotype.db").exists()
