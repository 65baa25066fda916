"""What starts servers for tests leaves none behind, whatever ends the tests."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

from tests.serving import START_S_MAX, STOP_S_MAX

TESTS = """
import sys, time
from pathlib import Path
from tests.serving import running_server
with running_server(Path(sys.argv[1]), is_drawn=False) as server:
    print(server.process.pid, flush=True)
    time.sleep(1000)
"""


def test_a_server_does_not_outlive_tests_that_are_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", TESTS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as tests:
        assert tests.stdout is not None
        assert select.select([tests.stdout], [], [], START_S_MAX)[0]
        server = os.pidfd_open(int(tests.stdout.readline()))
        tests.kill()
        tests.wait()
    try:
        assert select.select([server], [], [], STOP_S_MAX)[0], "it runs on"
    finally:
        os.close(server)
