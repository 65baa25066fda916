"""Relax fills what others leave: batches are full off-peak, and nobody waits for it.

It is no rule of its own. A job starts wherever an engine has room for its rows
(``Line._start_what_fits``), in fair order; when no heavier tier waits, relax is next in that order.
What it leaves free are the rows that an engine spares for heavier tiers (``EngineUp.rows_spare``).
"""

from __future__ import annotations

from calotype.core.decisions import StartAttempt
from calotype.core.events import EngineUp, JobSettled
from calotype.core.nouns import Tier
from tests.policy.fleet import Fleet, queued


def starts(decisions: list[object]) -> list[str]:
    return [one.job_id for one in decisions if isinstance(one, StartAttempt)]


def test_relax_jobs_join_a_turbo_job_where_its_engine_has_room() -> None:
    fleet = Fleet()
    fleet.up(rows_max=4)
    fleet.feed(queued("t", tier=Tier.TURBO))
    assert [starts([*fleet.feed(queued(f"r{at}", tier=Tier.RELAX))]) for at in range(4)] == [
        ["r0"],
        ["r1"],
        ["r2"],
        [],
    ]
    assert starts([*fleet.feed(JobSettled("t", 1.0))]) == ["r3"], "the row is filled at once"


def test_off_peak_relax_alone_fills_every_row_of_every_engine() -> None:
    fleet = Fleet()
    for at in range(3):
        fleet.up(f"e{at}", rows_max=4)
    for at in range(20):
        fleet.feed(queued(f"r{at}", tier=Tier.RELAX))
    assert len(fleet.running) == 12
    assert all(fleet.rows_on(f"e{at}") == 4 for at in range(3))


def test_rows_that_come_free_go_to_heavier_tiers_while_those_wait() -> None:
    fleet = Fleet()
    fleet.up(rows_max=2)
    for at in range(4):
        fleet.feed(queued(f"r{at}", tier=Tier.RELAX))
    for at in range(4):
        fleet.feed(queued(f"t{at}", tier=Tier.TURBO))
    begun = [starts([*fleet.feed(JobSettled(job, 1.0))]) for job in ("r0", "r1", "t0", "t1")]
    assert begun == [["t0"], ["t1"], ["t2"], ["t3"]]
    assert starts([*fleet.feed(JobSettled("t2", 1.0))]) == ["r2"], "no turbo job waits any more"


def test_relax_leaves_the_rows_that_are_spared_for_others() -> None:
    fleet = Fleet()
    fleet.line.on(EngineUp("e0", ("m",), rows_max=4, rows_spare=2), 0.0)
    line = fleet.line
    begun = [starts([*line.on(queued(f"r{at}", tier=Tier.RELAX), 0.0)]) for at in range(3)]
    assert begun == [["r0"], ["r1"], []]
    assert starts([*line.on(queued("t", tier=Tier.TURBO), 0.0)]) == ["t"]
