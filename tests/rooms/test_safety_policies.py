"""Policies as data, who has which, and what an open model needs before it is served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calotype.core.errors import OperatorError
from calotype.core.nouns import VerdictKind
from calotype.safety.policies import shipped
from calotype.safety.prompts import PromptCheck
from calotype.safety.setup import SafetySetup

CHECK = """
[checks.looks]
kind = "classifier"
path = "looks"
[checks.looks.categories]
nsfw = "sexual"
blood = "violence"
normal = "harmless"
"""


def setup(folder: Path, text: str) -> SafetySetup:
    file = folder / "safety.toml"
    file.write_text(text)
    (folder / "looks").mkdir(exist_ok=True)
    (folder / "looks" / "config.json").write_text(json.dumps({"id2label": {}}))
    return SafetySetup.from_file(file)


def test_everybody_has_pg13_where_nothing_is_said() -> None:
    found = SafetySetup.from_file(None)
    assert found.policy("any").name == "pg13"
    assert found.policy("any").version.startswith("pg13-1-")
    assert [each.name for each in found.in_force()] == ["pg13"]
    assert not found.policies["mature"].is_enabled


def test_a_tenant_can_have_another_and_a_version_names_every_word(tmp_path: Path) -> None:
    found = setup(tmp_path, '[tenants]\nacme = "enterprise"\n')
    assert found.policy("acme").name == "enterprise"
    assert found.policy("other").name == "pg13"
    own = (
        'extends = "enterprise"\nversion = 3\n[policies.studio.pictures]\ngore = 0.1\nlogo = 0.5\n'
    )
    own = f'[tenants]\nacme = "studio"\n[policies.studio]\n{own}'
    studio = setup(tmp_path, own).policy("acme")
    assert studio.version.startswith("studio-3-")
    assert (studio.pictures["gore"], studio.pictures["logo"]) == (0.1, 0.5)
    assert studio.pictures["violence"] == shipped()["enterprise"].pictures["violence"]
    assert setup(tmp_path, own.replace("0.1", "0.2")).policy("acme").version != studio.version


def test_a_policy_for_adults_is_for_those_who_were_verified(tmp_path: Path) -> None:
    text = '[tenants]\nacme = "grown"\n[policies.grown]\nextends = "mature"\n'
    found = setup(tmp_path, f'adults = ["acme/ada"]\n{text}')
    assert found.policy("acme", "ada").name == "grown"
    assert found.policy("acme", "bob").name == "pg13"
    assert found.policy("acme").name == "pg13"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('default = "mature"', "isn't turned on"),
        ('[tenants]\nacme = "nothing"', "isn't one"),
        ('[policies.pg13]\ntitle = "mine"', "is shipped"),
        ('[policies.a]\nextends = "b"\n[policies.b]\nextends = "a"', "can't extend"),
        ('[policies.a]\nunknown = 1', "unknown"),
        ("[policies.a.pictures]\nsexual = 1.5", "sexual"),
        ("[policies.a.pictures]\nsexual = nan", "sexual"),
        ("[policies.a.pictures]\nsexual_minors = 0.9", "always blocked"),
        ('[policies.a.prompts]\noff = ["sexual_minors"]', "can't turn off"),
        ('default = "a"\n[policies.a]\nextends = "pg13"\n[policies.a.prompts]\noff = ["sexual"]',
         "adults_only"),
        ('default = "a"\n[policies.a]\nextends = "pg13"\n[policies.a.pictures]\nsexual = 0.9',
         "adults_only"),
        (CHECK.replace("sexual", "unheard_of"), "no threshold for 'unheard_of'"),
        (CHECK.replace('"classifier"', '"domain"'), "comes with its model"),
        (CHECK.replace('"classifier"', '"concepts"'), "concept, special"),
        (CHECK.replace('"looks"', '"elsewhere"'), "no config.json"),
        (CHECK.replace('"classifier"', '"recogniser"'), "names the models"),
        (CHECK.replace('"looks"', '"looks"\nmodels = ["tiny"]'), "only a recogniser"),
        (CHECK.replace('path = "looks"', 'model = "looks"\nmodels = ["tiny"]').replace(
            '"classifier"', '"recogniser"'), "no classifier"),
        ("not toml", "can't be read"),
    ],
)  # fmt: skip
def test_what_may_not_be_said_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OperatorError, match=says):
        setup(tmp_path, text)


OWN = """
default = "studio"
[policies.studio]
extends = "enterprise"
[policies.studio.pictures]
logo = 0.5
"""


def test_a_check_may_find_a_category_of_ones_own_if_all_have_a_threshold_for_it(
    tmp_path: Path,
) -> None:
    logo = CHECK.replace('"sexual"', '"logo"')
    found = setup(tmp_path, OWN + logo)
    assert [each.name for each in found.judging()] == ["studio"]
    assert any("sexual" in each for each in found.missing("")), "what pg13 needs is still needed"
    for more in ('tenants = { acme = "pg13" }', 'tenants = { acme = "grown" }'):
        grown = "" if "pg13" in more else '[policies.grown]\nextends = "mature"\n'
        grown += "[policies.grown.pictures]\nlogo = 0.5\n" if grown else ""
        with pytest.raises(OperatorError, match="policy pg13 has no threshold for 'logo'"):
            setup(tmp_path, f"{more}\n{OWN}{grown}{logo}")


def test_a_model_that_draws_anything_needs_checks_and_is_told_how(tmp_path: Path) -> None:
    nothing = SafetySetup.from_file(None)
    assert nothing.missing("vignette-domain") == []
    assert len(nothing.missing("")) == 2
    assert all("safety.toml" in each for each in nothing.missing(""))
    assert "no domain" in nothing.missing("made-up")[0]
    half = setup(tmp_path, CHECK.replace("violence", "gore"))
    assert ["violence" in each for each in half.missing("")] == [True]
    whole = setup(tmp_path, CHECK)
    assert whole.missing("") == []
    assert [use.name for use in whole.uses("")] == ["looks"]
    assert [use.name for use in whole.uses("vignette-domain")] == ["vignette-domain", "looks"]


def test_a_recogniser_is_of_some_models_and_finds_nothing_in_pictures(tmp_path: Path) -> None:
    text = CHECK.replace('path = "looks"', 'path = "looks"\nmodels = ["tiny"]')
    found = setup(tmp_path, text.replace('"classifier"', '"recogniser"'))
    assert found.uses("", "other") == ()
    [use] = found.uses("", "tiny@0123abcd")
    assert use.reads
    assert len(found.missing("")) == 2
    limits = {
        f"looks:{label}": found.policies["pg13"].limit(category, reads=True)
        for label, category in (("nsfw", "sexual"), ("blood", "violence"))
    }
    assert found.refused_from([use], None) == limits


def test_a_checks_build_is_of_its_files(tmp_path: Path) -> None:
    before = setup(tmp_path, CHECK)
    assert setup(tmp_path, CHECK).version == before.version
    (tmp_path / "looks" / "model.safetensors").write_bytes(b"other weights")
    assert setup(tmp_path, CHECK).version != before.version


# Prompts.


def test_the_prompt_check_is_by_a_policy_and_says_so(tmp_path: Path) -> None:
    base = PromptCheck.default()
    mature, pg13 = (base.under(shipped()[name]) for name in ("mature", "pg13"))
    assert pg13.judge("a nude statue").category == "sexual"
    assert mature.judge("a nude statue").kind is VerdictKind.ALLOW
    assert mature.judge("a nude statue").policy == shipped()["mature"].version
    assert mature.judge("a child, nude").category == "sexual_minors"
    assert base.judge("a nude statue").category == "sexual", "the one it is made of is as it was"
    report = pg13.explain({"prompt": "a nude statue"})
    assert report["policy"] == shipped()["pg13"].version
    stricter = base.under(shipped()["enterprise"])
    assert stricter.classifier.thresholds["sexual"] == 0.5
    assert base.classifier.thresholds["sexual"] > 0.5
