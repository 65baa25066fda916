"""``calotype bench``: what this machine does, beside plain diffusers.

``first-image`` measures a server of its own through the public API in a folder of its own, then,
once that has ended, the unmodified diffusers pipeline on the same model in a process of its own.
``engine`` measures engines and other servers under load (bench_engine), ``load`` how quickly a
model is in memory (bench_load).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.cli.bench_engine import engine
from calotype.cli.bench_load import load
from calotype.cli.console import AsJson, print_json, print_table, say
from calotype.core.errors import InternalError

app = typer.Typer(help="Measure this machine.", no_args_is_help=True)
PROMPT = "a red house by the sea under a starry winter night"
_SEED = 1000
_ACCEPT_S_MAX, _FIRST_S_MAX = 3.0, 15.0  # what Calotype promises on 2 cores


@app.callback()
def bench() -> None:
    """Measure this machine."""


@app.command("first-image")
def first_image(
    *,
    pictures: Annotated[int, typer.Option(min=1, max=64, help="One after another.")] = 5,
    together: Annotated[int, typer.Option(min=1, max=64, help="All at once.")] = 8,
    as_json: AsJson = False,
) -> None:
    """From a fresh start to the first picture, and the steady time beside plain diffusers."""
    result = _measure_platform(pictures, together)
    say("measuring the plain diffusers pipeline ...")
    result |= _measure_plain(result["job"], pictures, together)
    result["one_by_one_ratio"] = result["one_by_one_s"] / result["plain_s"]
    result["together_ratio"] = result["together_s"] / result["plain_batch_s"]
    if as_json:
        print_json(result)
    else:
        _print(result)


def _measure_platform(pictures: int, together: int) -> dict[str, Any]:
    from calotype.cli.client import Client
    from calotype.cli.servers import own_server
    from calotype.settings import Settings

    with tempfile.TemporaryDirectory(prefix="calotype-bench-") as folder:
        say("starting a server ...")
        began = time.monotonic()
        with (
            own_server(Settings(home=Path(folder)), port=0) as (server, _),
            Client(server) as client,
        ):
            job = client.create({"prompt": PROMPT, "seed": _SEED})
            accepted_s = time.monotonic() - began
            first = _finish(client, job)
            first_s = time.monotonic() - began
            say(f"drawing {pictures} one after another, then {together} at once ...")
            one_s = _one_by_one_s(client, pictures)
            together_s = _together_s(client, together)
    facts = ("model", "width", "height", "steps", "guidance", "sampler")
    return {
        "accepted_s": accepted_s,
        "first_picture_s": first_s,
        "one_by_one_s": one_s,
        "together_s": together_s,
        "pictures": pictures,
        "together": together,
        "job": {name: first[name] for name in facts},
    }


def _one_by_one_s(client: Any, count: int) -> float:
    began = time.monotonic()
    for number in range(count):
        _finish(client, client.create({"prompt": PROMPT, "seed": _SEED + 1 + number}))
    return (time.monotonic() - began) / count


def _together_s(client: Any, count: int) -> float:
    began = time.monotonic()
    jobs = [client.create({"prompt": PROMPT, "seed": _SEED + 100 + i}) for i in range(count)]
    for job in jobs:
        _finish(client, job)
    return (time.monotonic() - began) / count


def _finish(client: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Follow a job to its end; a picture counts once its bytes are here."""
    for _ in client.follow(job):
        pass
    ended: dict[str, Any] = client.job(job["id"])
    if ended["status"] != "succeeded":
        raise InternalError(f"a job of the benchmark {ended['status']}: {ended['error']}")
    for image in ended["images"]:
        client.download(image["url"])
    return ended


def _measure_plain(job: dict[str, Any], pictures: int, together: int) -> dict[str, float]:
    """Run the plain pipeline in a process of its own: this one never imports torch."""
    from calotype.cli.catalogues import catalogue_of
    from calotype.cli.servers import terminating_as_interrupt

    command = [sys.executable, "-m", "calotype.engine.plain"]
    command += ["--model", catalogue_of(None).models.get(job["model"]).path]
    for name in ("width", "height", "steps", "guidance", "sampler"):
        command += [f"--{name}", str(job[name])]
    command += ["--prompt", PROMPT, "--pictures", str(pictures), "--together", str(together)]
    with terminating_as_interrupt():  # so that the process ends with this one
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise InternalError(f"the plain pipeline failed: {answer.stderr.strip()[-500:]}")
    measured: dict[str, float] = json.loads(answer.stdout.strip().splitlines()[-1])
    return measured


def _print(result: dict[str, Any]) -> None:
    title = "{model}, {width} x {height}, {steps} steps, guidance {guidance}, {sampler}".format(
        **result["job"]
    )
    accepted, first = f"{result['accepted_s']:.2f} s", f"{result['first_picture_s']:.2f} s"
    rows = [
        ("start to first job accepted", accepted, f"promised {_ACCEPT_S_MAX:.0f} s", ""),
        ("start to first picture", first, f"promised {_FIRST_S_MAX:.0f} s", ""),
    ]
    for what, ours, theirs, ratio in (
        (f"each of {result['pictures']} one by one", "one_by_one_s", "plain_s", "one_by_one_ratio"),
        (f"each of {result['together']} at once", "together_s", "plain_batch_s", "together_ratio"),
    ):
        figures = (f"{result[ours]:.3f} s", f"{result[theirs]:.3f} s", f"{result[ratio]:.2f}")
        rows.append((what, *figures))
    print_table(("what", "Calotype", "plain diffusers", "ratio"), rows, title)


app.command("engine")(engine)
app.command("load")(load)
