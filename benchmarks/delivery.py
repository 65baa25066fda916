"""Pictures a second: ``python -m benchmarks.delivery [--json FILE]``, beside nginx.

A real server (``uvicorn`` as ``calotype serve`` sets it up, one process) serves a delivered picture
from its local store; nginx serves the same file. Asked by ``wrk`` on the same machine: whole
pictures, and 304s. Each is measured in turn, several rounds, and told with the load of the machine.
Needs nginx and wrk (Debian's packages).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from calotype.api.app import create_app
from calotype.cli.server import server_for
from calotype.flow.platform import Platform
from calotype.settings import Settings
from tests import nginx
from tests.pictures import file_of, picture
from tests.rooms.api import FAKE

ROUNDS, SECONDS, CONNECTIONS = 5, 4, 32


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(serve(asked.serve))
        return
    if shutil.which("wrk") is None or nginx.find() is None:
        sys.exit("needs nginx and wrk: apt-get install nginx-light wrk")
    results = measured()
    for name, rates in results.items():
        middle, least, most = statistics.median(rates), min(rates), max(rates)
        print(f"{name:28} {middle:8.0f} a second  ({least:.0f} to {most:.0f})")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if asked.json:
        asked.json.write_text(json.dumps({"rates": results, "load": os.getloadavg()[0]}, indent=1))


def measured() -> dict[str, list[float]]:
    """Requests a second, by what was asked of whom; rounds take turns."""
    with tempfile.TemporaryDirectory() as name, calotype(Path(name)) as (url, etag, file, size):
        folder = Path(name)
        static = f"location / {{ root {file.parent}; etag on; }} open_file_cache max=100;"
        with nginx.running(folder, static) as front:
            there = f"{front}/{file.name}"
            own = httpx.get(there).headers["etag"]
            print(f"a WebP of {size:,} bytes; {CONNECTIONS} connections, {SECONDS} s a round")
            asked = {
                "calotype, whole": (url, None),
                "calotype, 304": (url, etag),
                "nginx, whole": (there, None),
                "nginx, 304": (there, own),
            }
            rates: dict[str, list[float]] = {each: [] for each in asked}
            for _ in range(ROUNDS):
                for each, (address, known) in asked.items():
                    rates[each].append(rate(address, known))
            return rates


def rate(url: str, etag: str | None) -> float:
    """What wrk counts a second; every answer has to be a good one."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", url]
    if etag:
        command += ["-H", f"If-None-Match: {etag}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said, said
    assert "Socket errors" not in said, said
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found is not None, said
    return float(found[1])


@contextmanager
def calotype(home: Path) -> Iterator[tuple[str, str, Path, int]]:
    """A server in a process of its own: a picture's address, its ETag, its file, its bytes."""
    command = [sys.executable, "-m", "benchmarks.delivery", "--serve", str(home / "home")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = next(json.loads(line) for line in process.stdout if line.startswith(b"{"))
        answer = httpx.get(told["url"])
        (found,) = (home / "home" / "pictures").rglob(f"{told['id']}.*.webp")
        assert found.read_bytes() == answer.content
        try:
            yield told["url"], answer.headers["etag"], found, len(answer.content)
        finally:
            process.kill()


async def serve(home: Path) -> None:
    """Make a picture, say where it is, and serve until killed."""
    import calotype.pool.pool
    from calotype.cli.logging_setup import configure_logging

    calotype.pool.pool.ENGINE_COMMAND = FAKE
    configure_logging(Settings(home=home, log_level="warning"))
    platform = await Platform.start(Settings(home=home))
    # The protocol by name, as `calotype serve` has it: asyncio turns Nagle's delay off only then.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        server = server_for(create_app(platform))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        image = await made(url, str(platform.new_key))
        print(json.dumps({"url": url + image["webp_url"], "id": image["id"]}), flush=True)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        await serving


async def made(url: str, key: str) -> dict[str, Any]:
    """A picture of 512 x 512 pixels."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as client:
        file = file_of(picture(512, 512))
        kind = {"Content-Type": "image/png"}
        source = (await client.post("/v1/pictures", content=file, headers=kind)).json()["id"]
        ask = {"prompt": "a tent", "source": source, "strength": 0.5}
        job = (await client.post("/v1/jobs", json=ask)).json()
        while job["status"] != "succeeded":
            await asyncio.sleep(0.1)
            job = (await client.get(job["urls"]["self"])).json()
        image: dict[str, Any] = job["images"][0]
        return image


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
