"""``calotype engines``: what whoever runs the machines has to say of them."""

from __future__ import annotations

from typing import Annotated

import typer

from calotype.cli.console import AsJson, Home, print_json, say
from calotype.core.errors import OperatorError

app = typer.Typer(help="Engines: notice that a machine goes.", no_args_is_help=True)


@app.callback()
def engines() -> None:
    """Engines: notice that a machine goes."""


@app.command()
def notice(
    *,
    engine: Annotated[str, typer.Argument(help="As `calotype models where` shows it.")],
    seconds: Annotated[float, typer.Option(help="How soon it is taken away.")] = 120.0,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Say that an engine is to be taken away: it gets no more work, and what doesn't end in time is
    handed back with what was done of it, to go on elsewhere. Afterwards it begins anew.

    For the server that runs; clouds' notices come by a script that calls this.
    """
    from calotype.cli.client import Client
    from calotype.cli.servers import find_server
    from calotype.settings import Settings

    server = find_server(Settings(home=home))
    if server is None:
        raise OperatorError("no server runs on this home folder: there are no engines")
    with Client(server) as client:
        told = client.post(f"/v1/engines/{engine}/notice", {"seconds": seconds})
    if as_json:
        print_json(told)
    else:
        say(f"{engine} gets no more work, and hands back what isn't done before it goes")
