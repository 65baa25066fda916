"""``python -m tests.faked serve ...``: the command line, but its servers' engines are the fake one.

For servers of which no test looks at a picture: an engine that draws takes ten seconds of a core to
start. The fake one keeps the same contract (tests/rooms/test_engine_contract.py). FAKE_STEP_S in
the environment is a step's time, in seconds.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import httpx

from calotype.cli import main
from calotype.pool import pool
from tests.pictures import file_of, picture

STEP_S = f"CALOTYPE_FAKE_STEP_S={os.environ.get('FAKE_STEP_S', '0.001')}"  # no setting of a server
ENGINE = ("env", STEP_S, sys.executable, "-m", "calotype.pool.testing")


def a_source(client: httpx.Client) -> dict[str, Any]:
    """What a job asks for that is to succeed: it gives this back; one from text alone is flat, and
    a flat picture can't be marked."""
    file, headers = file_of(picture(192, 144)), {"Content-Type": "image/png"}
    sent = client.post("/v1/pictures", content=file, headers=headers).raise_for_status()
    return {"source": sent.json()["id"], "strength": 1.0}


if __name__ == "__main__":
    pool.ENGINE_COMMAND = ENGINE  # type: ignore[assignment]  # a longer one
    main()
