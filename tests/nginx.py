"""nginx in front of a server, on this machine: its own process, its own folder, a free port.

Where there is none, ``python -m tests.nginx`` installs Debian's package (``make test`` runs it).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import debian

PLACES = ("nginx", "/usr/sbin/nginx")  # Debian keeps it where only root's PATH looks
START_S_MAX = 60.0
# The whole of docs/delivery.md's set-up is ``{server}``; the rest is what a test needs of nginx.
CONFIG = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; types {{ image/webp webp; image/png png; }}
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {http}
    server {{ listen 127.0.0.1:{port}; {server} }}
}}
"""


def find() -> str | None:
    """The path of nginx, or None."""
    return next((path for name in PLACES if (path := shutil.which(name))), None)


@contextmanager
def running(folder: Path, server: str, http: str = "") -> Iterator[str]:
    """Run nginx with these parts of a configuration; yields its address."""
    program = find()
    if program is None:
        raise RuntimeError("no nginx: run `python -m tests.nginx` (`make test` does)")
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()
        config = folder / "nginx.conf"
        config.write_text(CONFIG.format(folder=folder, port=port, server=server, http=http))
        command = [program, "-c", str(config), "-p", str(folder), "-e", str(folder / "start.log")]
        if os.geteuid() == 0:  # its workers would change to a user that may not read our folder
            command += ["-g", "user root;"]
        # As when one nginx takes another's place: it listens on the socket it is handed, so that
        # nobody else can have had the port meanwhile.
        env = {**os.environ, "NGINX": f"{fd};"}
        with subprocess.Popen(command, env=env, pass_fds=[fd]) as process:
            try:
                _wait_until_up(folder / "nginx.pid", process)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _wait_until_up(pid: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S_MAX
    while time.monotonic() < until and process.poll() is None:
        if pid.exists():  # written when all is read and open
            return
        time.sleep(0.05)
    raise RuntimeError(f"nginx didn't start ({process.poll()})")


if __name__ == "__main__":
    sys.exit(debian.ready(find, "nginx-light", "nginx", "one file of tests needs it."))
