"""The line's standing as entries of a note, and back."""

from __future__ import annotations

import json

from calotype.core.events import EngineUp, JobQueued
from calotype.core.nouns import Tier
from calotype.flow.standing import entries_of, standing_of
from calotype.policy.pools import Lines


def test_a_standing_is_the_same_after_it_was_a_note() -> None:
    line = Lines()
    line.on(EngineUp("e", ("m",), rows_max=2), 0.0)
    line.on(EngineUp("p", ("m",), rows_max=2, pool="mature"), 0.0)
    for at, tenant in enumerate(["ada", "bob", "a/b", "a:b", "", "ada"]):
        for tier in Tier:
            user = f"user {at}"
            line.on(JobQueued(f"{at} {tier}", tenant, tier, "m", 1, 5.0, user=user), 0.0)
    line.on(JobQueued("own", "a:b", Tier.FAST, "m", 1, 5.0, pool="mature"), 0.0)
    standing = line.standing()
    entries = json.loads(json.dumps(entries_of(standing)))
    assert {"clock", "turbo", "turbo/a/b", "relax/", "mature:fast/a:b"} <= entries.keys()
    assert standing_of(entries) == standing
    assert standing_of(None) is None
