"""``calotype serve``: the platform, its API and its page, until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calotype.cli.console import Home, say


def serve(
    *,
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    engines: Annotated[int | None, typer.Option(help="Engine processes.")] = None,
    engine_threads: Annotated[int | None, typer.Option(help="CPU threads of an engine.")] = None,
    heartbeat_s: Annotated[
        float | None, typer.Option(help="Seconds between engines' signs of life.")
    ] = None,
    database_url: Annotated[str | None, typer.Option(help="SQLAlchemy address.")] = None,
    models_folder: Annotated[Path | None, typer.Option(help="Folder of models.")] = None,
    queued_jobs_max: Annotated[int | None, typer.Option(help="Jobs that may wait.")] = None,
    queued_jobs_per_tenant_max: Annotated[
        int | None, typer.Option(help="Jobs of one tenant that may wait.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Shares of device time: turbo=10,fast=5,relax=1.")
    ] = None,
    reserved: Annotated[str | None, typer.Option(help="Shares kept free: turbo=0.2.")] = None,
    relax_wait_s_max: Annotated[
        float | None, typer.Option(help="Seconds until a relax job is promoted.")
    ] = None,
    relax_share_min: Annotated[
        float | None, typer.Option(help="Share of relax at least, 0 to 1.")
    ] = None,
    affinity_passes_max: Annotated[
        int | None, typer.Option(help="Warm jobs that may pass a cold one.")
    ] = None,
    affinity_s_max: Annotated[
        float | None, typer.Option(help="Seconds for which they may.")
    ] = None,
    jobs_per_minute: Annotated[
        str | None, typer.Option(help="Of each tenant in a tier: turbo=6,fast=30.")
    ] = None,
    jobs_at_once: Annotated[
        str | None, typer.Option(help="Of those, in one moment: fast=10.")
    ] = None,
    unfinished_jobs_max: Annotated[
        str | None, typer.Option(help="That wait or run, of a tenant in a tier: fast=20.")
    ] = None,
    blocklist: Annotated[Path | None, typer.Option(help="Further blocked terms.")] = None,
    blocked_pictures: Annotated[
        Path | None, typer.Option(help="Hashes of blocked pictures.")
    ] = None,
    certificate_chain: Annotated[Path | None, typer.Option(help="PEM chain for signing.")] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="PEM key for signing.")] = None,
    finish_processes: Annotated[
        int | None, typer.Option(help="Processes that finish pictures.")
    ] = None,
    link_ttl_s: Annotated[int | None, typer.Option(help="Seconds that links stay good.")] = None,
    record: Annotated[Path | None, typer.Option(help="File to record the line to.")] = None,
    idempotency_kept_s: Annotated[
        int | None, typer.Option(help="Seconds that idempotency keys are kept.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    end_with_stdin: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run the platform: API, page, dispatcher and engines.

    Each option can also be set as CALOTYPE_<NAME>, or in <home>/calotype.toml.
    """
    flags = {name: value for name, value in locals().items() if name != "end_with_stdin"}
    from calotype.cli.logs import configure_logging
    from calotype.cli.server import run_server
    from calotype.settings import Settings

    settings = Settings(**flags)
    configure_logging(settings)

    def announce(url: str, new_key: str | None) -> None:
        if new_key is None:
            print(f"Calotype is at {url}/ (a key for it is in {settings.key_path})", flush=True)
        else:
            print(f"Calotype is at {url}/#key={new_key}", flush=True)
            print(
                f"API key, printed this once and kept in {settings.key_path}: {new_key}", flush=True
            )

    run_server(settings, announce, end_with_stdin=end_with_stdin)
    say("Calotype has stopped.")
