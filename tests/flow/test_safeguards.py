"""Which models are served, by whose policy people are judged, and what commands say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from calotype.core.errors import ModelBroken, OperatorError
from calotype.core.nouns import Job, Tier, VerdictKind
from calotype.core.states import JobState
from calotype.flow.safeguards import Safeguards
from calotype.safety.pdq import to_hex
from calotype.settings import Settings
from tests.flow.command_line import here
from tests.flow.dispatch_bench import MODEL, SPEC
from tests.rooms.test_safety_pdq import far
from tests.rooms.test_safety_policies import CHECK
from tests.tensors import make_base


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    (folder / "looks").mkdir(parents=True)
    (folder / "looks" / "config.json").write_text("{}")
    return folder


def test_an_open_model_is_served_once_its_pictures_can_be_judged(home: Path) -> None:
    closed = replace(MODEL, domain="vignette-domain")
    before = Safeguards(Settings(home=home))
    before.check_served(closed)
    with pytest.raises(ModelBroken, match=r"finds 'sexual'.*finds 'violence'.*safety\.toml"):
        before.check_served(MODEL)
    assert before.equipped(MODEL).checks == ()
    assert [use.name for use in before.equipped(closed).checks] == ["vignette-domain"]
    (home / "safety.toml").write_text(CHECK)
    after = Safeguards(Settings(home=home))
    after.check_served(MODEL)
    assert [use.name for use in after.equipped(MODEL).checks] == ["looks"]


def test_each_is_judged_by_a_policy_of_their_own(home: Path) -> None:
    grown = '[policies.grown]\nextends = "mature"\n'
    text = f'adults = ["acme/ada"]\n[tenants]\nacme = "grown"\n{grown}'
    (home / "safety.toml").write_text(text)
    guards = Safeguards(Settings(home=home))
    assert guards.prompts("acme", "ada").judge("a nude statue").kind is VerdictKind.ALLOW
    for tenant, user in (("acme", "bob"), ("other", "ada")):
        verdict = guards.prompts(tenant, user).judge("a nude statue")
        assert (verdict.category, verdict.policy[:4]) == ("sexual", "pg13")
    assert guards.prompts("acme", "ada").judge("a child, nude").category == "sexual_minors"


def job(prompt: str, user: str = "ada") -> Job:
    """Of the tenant acme, queued."""
    spec, now = replace(SPEC, prompt=prompt, pool="mature"), datetime.now(UTC)
    return Job("j", "acme", Tier.FAST, spec, JobState.QUEUED, now, None, None, 0, 0, (), None,
               user=user)  # fmt: skip


def test_a_policy_for_adults_does_not_reach_a_picture_of_a_minor(home: Path) -> None:
    grown = '[policies.grown]\nextends = "mature"\n'
    (home / "safety.toml").write_text(f'adults = ["acme/ada"]\n[tenants]\nacme = "grown"\n{grown}')
    guards = Safeguards(Settings(home=home))
    assert guards.policy_of(job("a tent by the sea")).name == "grown"
    assert guards.policy_of(job("a tent by the sea", "bob")).name == "pg13"
    for prompt in ("a schoolgirl by the sea", "she is 12 years old", "t.e.e.n by the sea"):
        assert guards.policy_of(job(prompt)).name == "pg13", prompt


def test_what_is_wrong_with_a_list_is_found_at_the_start(home: Path) -> None:
    (home / "hashes").mkdir()
    (home / "hashes" / "bad.pdq").write_text("no hash\n")
    with pytest.raises(OperatorError, match=r"bad\.pdq, line 1"):
        Safeguards(Settings(home=home))


# The command line.


def test_lists_of_known_pictures_are_added_and_listed(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("".join(f"{to_hex(each)},80\n" for each in far(3)))
    answer = here(home, "safety", "hashes", "add", str(file), "--name", "canaries")
    assert answer.returncode == 0, answer.stderr
    assert "3 hashes in canaries" in answer.stdout
    told = json.loads(here(home, "safety", "hashes", "list", "--json").stdout)
    assert [(each["name"], each["hashes"]) for each in told] == [("canaries", 3)]
    assert told[0]["is_severe"]
    change = ("safety", "hashes", "severity", "canaries")
    answer = here(home, *change, "ordinary", "--reason", "logos")
    assert "a match in canaries is ordinary" in answer.stdout, answer.stderr
    assert here(home, *change, "odd", "--reason", "logos").returncode == 2
    add = ("safety", "hashes", "add", str(file), "--name", "more", "--ordinary")
    assert "say why" in here(home, *add).stderr
    assert here(home, *add, "--reason", "logos").returncode == 0
    table = here(home, "safety", "hashes", "list").stdout.splitlines()
    assert [line.split() for line in table if "ordinary" in line] == [
        ["canaries", "3", "ordinary"],
        ["more", "3", "ordinary"],
    ]
    assert Settings(home=home).hash_lists == [home / "hashes"]


def test_policies_and_checks_are_told(home: Path) -> None:
    policies = json.loads(here(home, "safety", "policies", "--json").stdout)
    assert [each["is_default"] for each in policies] == [True, False, False]
    checks = json.loads(here(home, "safety", "checks", "--json").stdout)
    assert [each["name"] for each in checks["checks"]] == ["vignette-domain"]
    assert len(checks["missing"]) == 2
    (home / "safety.toml").write_text(CHECK)
    checks = json.loads(here(home, "safety", "checks", "--json").stdout)
    assert [each["name"] for each in checks["checks"]] == ["vignette-domain", "looks"]
    assert checks["missing"] == []


def test_explain_says_by_which_policy(home: Path) -> None:
    (home / "safety.toml").write_text('[tenants]\nacme = "enterprise"\n')
    for tenant, policy in (("acme", "enterprise-1-"), ("other", "pg13-1-")):
        answer = here(home, "safety", "explain", "a tent", "--tenant", tenant, "--json")
        assert json.loads(answer.stdout)["policy"].startswith(policy)


def test_adding_an_open_model_says_what_it_lacks(home: Path, tmp_path: Path) -> None:
    folder = make_base(tmp_path / "open", fill=b"\1")
    answer = here(home, "models", "add", str(folder), "--name", "open")
    assert answer.returncode == 0, answer.stderr
    assert "isn't served yet: no picture check finds 'sexual'" in answer.stderr
    listed = json.loads(here(home, "models", "list", "--json").stdout)
    assert list(listed["not_served"]) == ["open"]
    (home / "safety.toml").write_text(CHECK)
    listed = json.loads(here(home, "models", "list", "--json").stdout)
    assert listed["not_served"] == {}
