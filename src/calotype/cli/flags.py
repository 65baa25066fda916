"""The flags of ``calotype serve``: one for each setting, by the setting's name, in its order.

What a value may be is said by ``settings``, once for flags, environment and file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")]
Engines = Annotated[int | None, typer.Option(help="Engine processes.")]
EngineThreads = Annotated[int | None, typer.Option(help="CPU threads of an engine.")]
HeartbeatS = Annotated[float | None, typer.Option(help="Seconds between engines' signs of life.")]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="postgresql://USER@HOST/NAME, in place of SQLite.")
]
ModelsFolder = Annotated[Path | None, typer.Option(help="Folder of models.")]
QueuedJobsMax = Annotated[int | None, typer.Option(help="Jobs that may wait.")]
QueuedJobsPerTenantMax = Annotated[
    int | None, typer.Option(help="Jobs of one tenant that may wait.")
]
Weights = Annotated[
    str | None, typer.Option(help="Shares of device time: turbo=10,fast=5,relax=1.")
]
Reserved = Annotated[str | None, typer.Option(help="Shares kept free: turbo=0.2.")]
RelaxWaitSMax = Annotated[float | None, typer.Option(help="Seconds until a relax job is promoted.")]
RelaxShareMin = Annotated[float | None, typer.Option(help="Share of relax at least, 0 to 1.")]
AffinityPassesMax = Annotated[int | None, typer.Option(help="Warm jobs that may pass a cold one.")]
AffinitySMax = Annotated[float | None, typer.Option(help="Seconds for which they may.")]
JobsPerMinute = Annotated[
    str | None, typer.Option(help="Of each tenant in a tier: turbo=6,fast=30.")
]
JobsAtOnce = Annotated[str | None, typer.Option(help="Of those, in one moment: fast=10.")]
UnfinishedJobsMax = Annotated[
    str | None, typer.Option(help="That wait or run, of a tenant in a tier: fast=20.")
]
Blocklist = Annotated[Path | None, typer.Option(help="Further blocked terms.")]
BlockedPictures = Annotated[Path | None, typer.Option(help="Hashes of blocked pictures.")]
CertificateChain = Annotated[Path | None, typer.Option(help="PEM chain for signing.")]
CertificateKey = Annotated[Path | None, typer.Option(help="PEM key for signing.")]
FinishProcesses = Annotated[int | None, typer.Option(help="Processes that finish pictures.")]
LinkTtlS = Annotated[int | None, typer.Option(help="Seconds that links stay good.")]
Record = Annotated[Path | None, typer.Option(help="File to record the line to.")]
IdempotencyKeptS = Annotated[
    int | None, typer.Option(help="Seconds that idempotency keys are kept.")
]
LogFormat = Annotated[str | None, typer.Option(help="text or json.")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error.")]
