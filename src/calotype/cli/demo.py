"""``calotype demo``: a server and a first picture; what ``make demo`` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.console import FAILED, Home, say, say_error

if TYPE_CHECKING:
    from calotype.cli.client import Server
    from calotype.settings import Settings

PROMPT = "a cosy red cottage on the left under a starry winter night, snowy mountains"


def demo(
    *,
    prompt: Annotated[str, typer.Option(help="What the first picture shows.")] = PROMPT,
    home: Home = None,
) -> None:
    """Start the platform, make a first picture, and leave the platform running until Ctrl-C.

    A server that already runs on this home folder is used, and left as it is.
    """
    from calotype.cli.servers import find_server, is_port_free, own_server
    from calotype.settings import Settings

    settings = Settings(home=home)
    try:
        if running := find_server(settings):
            _first_picture(settings, running, prompt)
            return
        port = settings.port
        if not is_port_free(settings.host, port):
            say(f"Port {port} is taken by something else: a free one is used instead.")
            port = 0
        print("Starting Calotype ...", flush=True)
        with own_server(settings, port) as (server, process):
            _first_picture(settings, server, prompt)
            print("Ctrl-C ends it.", flush=True)
            process.wait()
        say_error(f"the server has ended; its log is {settings.home / 'server.log'}")
        raise typer.Exit(FAILED)
    except KeyboardInterrupt:
        print("\nCalotype has stopped.", flush=True)


def _first_picture(settings: Settings, server: Server, prompt: str) -> None:
    from calotype.cli.client import Client
    from calotype.cli.making import make_pictures, save_pictures

    print(f'Prompt:  "{prompt}"', flush=True)
    with Client(server) as client:
        job = make_pictures(client, {"prompt": prompt})
        path = settings.home / f"demo-{job['seed']}.png"
        save_pictures(client, job, [path])
    print(f"Picture: {path}")
    print(f"Page:    {server.page}", flush=True)
