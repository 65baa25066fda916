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
EngineMemoryBytes = Annotated[int | None, typer.Option(help="Memory of an engine, bytes.")]
EngineStagingBytes = Annotated[
    int | None, typer.Option(help="Host memory of an engine for copies of models, bytes.")
]
EngineArena = Annotated[
    bool | None, typer.Option(help="Engines on a CPU act as if memory there could be torn.")
]
FragmentationMax = Annotated[
    float | None, typer.Option(help="Share of free memory in pieces, until models move up.")
]
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
Safety = Annotated[Path | None, typer.Option(help="Policies and picture checks.")]
ChecksDownSMax = Annotated[float | None, typer.Option(help="Seconds without a check: no new jobs.")]
SealedKey = Annotated[Path | None, typer.Option(help="Key of what is sealed, kept apart.")]
KeptByLawDays = Annotated[float | None, typer.Option(help="Days that severe cases are kept.")]
ReportsUrl = Annotated[str | None, typer.Option(help="Service that severe cases are reported to.")]
ReportsLogin = Annotated[Path | None, typer.Option(help="File with user and password there.")]
ReportsContact = Annotated[str | None, typer.Option(help="E-mail address of who reports.")]
MarkedDecoders = Annotated[bool | None, typer.Option(help="Decode with a mark, where trained.")]
CertificateChain = Annotated[Path | None, typer.Option(help="PEM chain for signing.")]
CertificateKey = Annotated[Path | None, typer.Option(help="PEM key for signing.")]
CertificateCommand = Annotated[str | None, typer.Option(help="Command that signs, for a key.")]
CertificatesFormer = Annotated[Path | None, typer.Option(help="Chains that signed before.")]
TimestampUrl = Annotated[str | None, typer.Option(help="Time-stamping authority.")]
FinishProcesses = Annotated[int | None, typer.Option(help="Processes that finish pictures.")]
LinkTtlS = Annotated[int | None, typer.Option(help="Seconds that links stay good.")]
StoreUrl = Annotated[str | None, typer.Option(help="Bucket for pictures: s3://NAME/FOLDER.")]
QuarantineUrl = Annotated[str | None, typer.Option(help="Bucket for withdrawn pictures.")]
S3Endpoint = Annotated[str | None, typer.Option(help="Server that speaks S3, not Amazon's.")]
StoreRedirects = Annotated[bool | None, typer.Option(help="Send browsers to the bucket.")]
SharedCaches = Annotated[bool | None, typer.Option(help="Let a CDN keep pictures.")]
PurgeUrl = Annotated[str | None, typer.Option(help="Where caches are told to forget pictures.")]
PurgeHeaders = Annotated[str | None, typer.Option(help="Headers for that: Name: value.")]
KeptDays = Annotated[str | None, typer.Option(help="Days that pictures are kept: relax=30.")]
WebhooksPrivate = Annotated[bool | None, typer.Option(help="Webhooks to private addresses.")]
Record = Annotated[Path | None, typer.Option(help="File to record the line to.")]
IdempotencyKeptS = Annotated[
    int | None, typer.Option(help="Seconds that idempotency keys are kept.")
]
LogFormat = Annotated[str | None, typer.Option(help="text or json.")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error.")]
