"""Settings: who wins, where things lie, and what a mistake is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from calotype.core.errors import OperatorError
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
