"""Traces and fleets: what is wrong names line and field; the page and the commands."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core.errors import InvalidInput
from calotype.core.nouns import Tier
from calotype.sim.fleet import KINDS, of_gpus
from calotype.sim.fleet import read as read_fleet
from calotype.sim.jobs import Asked
from calotype.sim.page import page
from calotype.sim.trace import import_gentd26, line_of, read, write
from calotype.sim.traffic import Traffic
from tests.flow.command_line import calotype, here

GOOD = '{"at_s": 1.5, "tenant": "ann", "tier": "fast", "model": "m"}'


def trace_of(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "day.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: no JSON"),
        ("[]", "line 2: no JSON object"),
        ('{"at_s": 2, "tier": "fast", "model": "m"}', "line 2, field tenant: missing"),
        (
            GOOD.replace("fast", "quick"),
            "line 2, field tier: 'quick' is none of turbo, fast, relax",
        ),
        (GOOD.replace("1.5", "1.0"), "line 2, field at_s: 1.0 is before 1.5"),
        (GOOD.replace("1.5", '"soon"'), "line 2, field at_s: 'soon' is no number"),
        (GOOD.replace("1.5", "NaN"), "line 2, field at_s: nan is no number"),
        (GOOD.replace('"ann"', '""'), "line 2, field tenant: '' is no text"),
        (GOOD.replace('"m"', '"m", "n": 0'), "line 2, field n: 0 is no whole number from 1"),
        (GOOD.replace('"m"', '"m", "n": true'), "line 2, field n: True is no whole number"),
        (GOOD.replace('"m"', '"m", "sed": 4'), "line 2, field sed: unknown field"),
        (GOOD.replace('"m"', '"m", "loras": ["a", 3]'), "line 2, field loras: 3 is no text"),
        (GOOD.replace('"m"', '"m", "device_s": -1'), "line 2, field device_s: -1 is no number"),
        (f'{GOOD[:-1]}, "user": "{"x" * 10_000}"}}', "line 2: longer than 10000 characters"),
    ],
)
def test_a_wrong_line_of_a_trace_is_named_with_its_field(
    tmp_path: Path, line: str, says: str
) -> None:
    path = trace_of(tmp_path, GOOD, line)
    with pytest.raises(InvalidInput) as raised:
        list(read(path))
    assert f"day.jsonl, {says}" in raised.value.detail


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + GOOD.encode().replace(b"ann", b"\xff"))
    with pytest.raises(InvalidInput, match=r"day\.jsonl, line 2: it isn't UTF-8"):
        list(read(path))
    table = gentd26(tmp_path, "2024-11-15 18:16:04,T,SUCCEED,1,GG,1,,1,30,M,0")
    table.write_bytes(table.read_bytes().replace(b"GG", b"\xff"))
    with pytest.raises(InvalidInput, match=r"trace\.csv, line 2: it isn't UTF-8"):
        import_gentd26(table, seed=0)


@pytest.mark.parametrize("text", ["", "\n\n", '{"line": "told"}\n'])
def test_a_trace_without_jobs_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "day.jsonl").write_text(text)
    with pytest.raises(InvalidInput, match=r"day\.jsonl has no job"):
        list(read(tmp_path / "day.jsonl"))


def test_a_trace_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't be read"):
        list(read(tmp_path / "none.jsonl"))


NAME = st.text(min_size=1, max_size=20)


@given(
    st.builds(
        Asked,
        at_s=st.floats(0, 1e6),
        tenant=NAME,
        tier=st.sampled_from(Tier),
        model=NAME,
        n=st.integers(1, 64),
        loras=st.lists(NAME, max_size=3).map(tuple),
        user=st.just("") | NAME,
        device_s=st.none() | st.floats(0.001, 1e5),
    )
)
def test_what_is_written_is_read_again(job: Asked) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        assert write(path, [job]) == 1
        assert list(read(path)) == [job]


def test_a_trace_is_played_faster(tmp_path: Path) -> None:
    path = trace_of(tmp_path, GOOD, GOOD.replace("1.5", "30"))
    assert [job.at_s for job in read(path, rate=10)] == [0.15, 3.0]


HEADER = (
    "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,prompt_length,"
    "negative_prompt_length,num_images_per_prompt,num_inference_steps,"
    "checkpoint_model_version_id,num_lora"
)


def gentd26(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_gentd26_is_imported_in_order_of_time_without_failures(tmp_path: Path) -> None:
    path = gentd26(
        tmp_path,
        "2024-11-15 18:16:14,TXT_2_IMG,SUCCEED,43.0,G0001,93.0,,8.0,40.0,M0001,2",
        "2024-11-15 18:17:00,TXT_2_IMG,FAILED,3.0,G0001,93.0,,8.0,40.0,M0001,0",
        "2024-11-15 18:16:04,IMG_2_IMG,SUCCEED,,G0000,63.0,26.0,,,M0000,0",
    )
    first, second = import_gentd26(path, seed=1)
    assert (first.at_s, first.tenant, first.model, first.n, first.steps) == (
        0,
        "G0000",
        "M0000",
        1,
        30,
    )
    assert first.device_s is None
    assert (second.at_s, second.n, second.steps, second.device_s) == (10.0, 8, 40, 43.0)
    assert len(second.loras) == 2
    assert import_gentd26(path, seed=1) == [first, second]
    assert all(set(line_of(job)) >= {"at_s", "tenant", "tier", "model"} for job in (first, second))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("soon,T,SUCCEED,1,G,1,,1,30,M,0", "line 2, field gmt_create: 'soon' is no time"),
        ("2024-11-15 18:16:04,T,SUCCEED,x,G,1,,1,30,M,0", "field exec_time_seconds: 'x' is no"),
        ("2024-11-15 18:16:04,T,SUCCEED,1,G,1,,-2,30,M,0", "field num_images_per_prompt: '-2'"),
    ],
)
def test_a_wrong_row_of_gentd26_is_named(tmp_path: Path, row: str, says: str) -> None:
    with pytest.raises(InvalidInput, match="line 2") as raised:
        import_gentd26(gentd26(tmp_path, row), seed=0)
    assert says in raised.value.detail


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = gentd26(tmp_path, header=HEADER.replace("groupId", "group"))
    with pytest.raises(InvalidInput, match="line 1, field groupId: the column is missing"):
        import_gentd26(path, seed=0)


FLEET = """\
delay_s = 0.01
[objectives]
turbo = 10
[kinds.A100]
price_per_hour = 2.0
[kinds.L4]
speed = 0.25
price_per_hour = 0.8
spot_price_per_hour = 0.3
[[engines]]
region = "us-west"
kind = "A100"
count = 7
warm = ["sdxl"]
[[engines]]
region = "eu-west"
kind = "L4"
count = 3
spot_hours = 8
[[outages]]
region = "us-west"
at_s = 3600
for_s = 600
[reserved]
turbo = 0.2
"""


def fleet_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return path


def test_a_fleet_is_read(tmp_path: Path) -> None:
    plan = read_fleet(fleet_of(tmp_path, FLEET))
    assert plan.size == 10
    assert plan.kinds["A100"].price_per_hour == 2.0
    assert plan.kinds["A100"].speed == KINDS["A100"].speed
    assert plan.kinds["L4"].speed == 0.25
    assert plan.objectives == {Tier.TURBO: 10.0, Tier.FAST: 15.0, Tier.RELAX: 600.0}
    assert plan.reserved == {Tier.TURBO: 0.2}
    assert plan.engines[0].warm == ("sdxl",)
    assert plan.outages[0].at_s == 3600.0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("count = 3", "count = 0", "line 18, field engines[1].count: from 1 to 100000"),
        ("count = 3", 'count = "3"', "line 18, field engines[1].count: '3' can't be"),
        ("count = 3\n", "", "line 15, field engines[1].count: missing"),
        ('kind = "L4"', 'kind = "L5"', "line 17, field engines[1].kind: 'L5' is none of"),
        ("speed = 0.25", "speed = 0", "line 7, field kinds.L4.speed: must be above 0"),
        ("speed = 0.25", "sped = 0.25", "line 7, field kinds.L4.sped: unknown field"),
        ("turbo = 10", "trubo = 10", "line 3, field objectives.trubo: no tier"),
        ("turbo = 0.2", "turbo = 20", "line 25, field reserved.turbo: at most 1"),
        ("turbo = 0.2", "turbo = 0.96", "line 24, field reserved: reserved: with the floors, 101%"),
        ("at_s = 3600", "at_s = -1", "line 22, field outages[0].at_s: -1 can't be"),
        ('region = "us-west"\nat_s', 'region = "us-east"\nat_s', "field outages[0].region"),
        ("delay_s = 0.01", "dealy_s = 0.01", "line 1, field dealy_s: unknown field"),
        ("[[engines]]", "[[engine]]", "field engine: unknown field"),
        ("count = 7", "count = ", "line 13"),
    ],
)
def test_what_is_wrong_in_a_fleet_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in FLEET
    with pytest.raises(InvalidInput) as raised:
        read_fleet(fleet_of(tmp_path, FLEET.replace(old, new)))
    assert says in raised.value.detail


def test_fleets_and_traffic_have_bounds() -> None:
    with pytest.raises(InvalidInput):
        of_gpus(0)
    with pytest.raises(InvalidInput, match="images"):
        Traffic(images=0)
    with pytest.raises(InvalidInput, match="tiers"):
        Traffic(tiers={Tier.FAST: 0.0})
    with pytest.raises(InvalidInput, match="tiers"):
        Traffic(tiers={Tier.FAST: float("nan")})


# The commands


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def test_simulate_prints_the_same_json_twice_and_writes_a_page(tmp_path: Path) -> None:
    asked = ("simulate", "--images", "500", "--gpus", "3", "--hours", "1", "--seed", "4")
    more = ("--policy", "ours,fifo", "--json", "--html", "report.html")
    first, again = here(tmp_path, *asked, *more), calotype(tmp_path, *asked, *more)
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    report = json.loads(first.stdout)
    assert [run["policy"] for run in report["runs"]] == ["ours", "fifo"]
    text = (tmp_path / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.seen.count("svg") == tags.seen.count("figure") == 6
    assert "script" not in tags.seen
    assert "http" not in text


def test_simulate_plays_an_imported_trace_for_people(tmp_path: Path) -> None:
    rows = [
        f"2024-11-15 18:{at:02}:04,TXT_2_IMG,SUCCEED,30,G000{at % 3},9,,1,30,M000{at % 2},0"
        for at in range(30)
    ]
    path = gentd26(tmp_path, *rows)
    done = here(tmp_path, "trace", "import", str(path), "--format", "gentd26")
    assert done.stdout == "trace.jsonl: 30 jobs, 2 models, 3 tenants, 0.0 days\n", done.stderr
    played = here(tmp_path, "simulate", "--trace", "trace.jsonl", "--rate", "10", "--gpus", "2")
    assert played.returncode == 0
    assert "The trace trace.jsonl at 10 x its rate" in played.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--images", "5"), "give either --fleet or --gpus"),
        (("--gpus", "5"), "give either --trace or --images"),
        (("--gpus", "5", "--images", "5", "--policy", "lifo"), "'lifo' is none of ours, fifo"),
        (("--gpus", "5", "--images", "5", "--tiers", "gold=1"), "'gold=1' is no share"),
        (("--gpus", "5", "--images", "5", "--hours", "-1"), "--hours must be above 0"),
        (("--gpus", "5", "--trace", "none.jsonl"), "none.jsonl can't be read"),
        (("--gpus", "5", "--images", "5", "--html", "no/x.html"), "no/x.html can't be written"),
    ],
)
def test_wrong_use_exits_with_2_and_says_what(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = here(tmp_path, "simulate", *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_page_needs_no_waits_to_be_drawn() -> None:
    figures = {
        "policy": "ours", "tiers": {}, "images": 0, "failed": 0, "never_ran": 1,
        "refused": {"flux fits on no engine": 2},
        "warm_hit_rate": 1.0, "lora_hit_rate": 1.0, "utilisation": 0.0, "gpu_hours": 0.0,
        "cost_per_1000_images": 0.0, "jain": 1.0, "promoted": 0, "retried": 0, "makespan_s": 0.0,
        "handed_back": 0, "loads": {}, "loaded_gb": 0.0,
        "engines": {"mean": 0.0, "added": 0, "given_up": 0, "lost": 0, "lost_device_s": 0.0},
        "fragmentation": {"mean": 0.0, "max": 0.0, "loads_without_block": 0},
    }  # fmt: skip
    plots = {"ours": {"slice_s": 1.0, "waits": {}, "series": {}}}
    assert "<svg" in page({"said": "<b>", "runs": [figures]}, plots)
