"""A server that speaks S3, on this machine and over real HTTP: moto's, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "a secret of the tests",
    "AWS_REGION": "us-east-1",
}
_START_S_MAX = 60


@dataclass
class S3:
    """A running server."""

    endpoint: str
    process: subprocess.Popen[bytes]
    buckets: int = 0

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        self.buckets += 1
        name = f"bucket-{self.buckets}"
        httpx.put(f"{self.endpoint}/{name}").raise_for_status()
        return name

    def keys(self, bucket: str) -> list[str]:
        """What lies in a bucket, by name; no more than 1,000."""
        answer = httpx.get(f"{self.endpoint}/{bucket}?list-type=2").raise_for_status()
        return re.findall(r"<Key>([^<]*)</Key>", answer.text)


@contextmanager
def running(folder: Path) -> Iterator[S3]:
    """A server on a free port, until the end of the block; ``folder`` is for what it says."""
    command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0")
    with (folder / "s3.log").open("w+b") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            yield S3(_endpoint(process, folder / "s3.log"), process)
        finally:
            process.kill()
            process.wait()


def _endpoint(process: subprocess.Popen[bytes], said: Path) -> str:
    until = time.monotonic() + _START_S_MAX
    while time.monotonic() < until and process.poll() is None:
        for line in said.read_text().splitlines():
            if "Running on " in line:
                return line.rpartition("Running on ")[2].strip()
        time.sleep(0.05)
    raise AssertionError(f"the S3 server didn't start: {said.read_text()}")
