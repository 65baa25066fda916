"""The PostgreSQL that tests start: it ends with whoever started it, however that ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
TEST = """
from pathlib import Path
import time
from tests.conftest import postgres

def test_it_runs_until_it_is_killed(postgres):
    assert postgres.sql("SELECT 1") == "1"
    Path({told!r}).write_text(f"{{postgres.process.pid}} {{postgres.folder}}")
    time.sleep(999)
"""


def _is_running(pid: int) -> bool:
    """False for a zombie, too: whoever adopted it may be slow to look."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_pytest_leaves_no_server_and_no_folder(
    tmp_path: Path, how: signal.Signals
) -> None:
    told = tmp_path / "told"
    (tmp_path / "test_one.py").write_text(TEST.format(told=str(told)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + WAIT_S
        while not (told.exists() and told.read_text()):
            assert child.poll() is None, "the child's test failed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.send_signal(how)
        assert child.wait(WAIT_S) == -how
    pid, folder = told.read_text().split()
    deadline = time.monotonic() + WAIT_S
    while _is_running(int(pid)) or Path(folder).exists():
        assert time.monotonic() < deadline, "it outlives who started it"
        time.sleep(0.05)
