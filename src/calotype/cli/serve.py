"""``calotype serve``: the platform, its API and its page, until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calotype.cli import flags
from calotype.cli.console import Home, say


def serve(
    *,
    home: Home = None,
    host: flags.Host = None,
    port: flags.Port = None,
    engines: flags.Engines = None,
    engine_threads: flags.EngineThreads = None,
    engine_memory_bytes: flags.EngineMemoryBytes = None,
    engine_staging_bytes: flags.EngineStagingBytes = None,
    engine_arena: flags.EngineArena = None,
    fragmentation_max: flags.FragmentationMax = None,
    heartbeat_s: flags.HeartbeatS = None,
    database_url: flags.DatabaseUrl = None,
    models_folder: flags.ModelsFolder = None,
    queued_jobs_max: flags.QueuedJobsMax = None,
    queued_jobs_per_tenant_max: flags.QueuedJobsPerTenantMax = None,
    weights: flags.Weights = None,
    reserved: flags.Reserved = None,
    relax_wait_s_max: flags.RelaxWaitSMax = None,
    relax_share_min: flags.RelaxShareMin = None,
    affinity_passes_max: flags.AffinityPassesMax = None,
    affinity_s_max: flags.AffinitySMax = None,
    jobs_per_minute: flags.JobsPerMinute = None,
    jobs_at_once: flags.JobsAtOnce = None,
    unfinished_jobs_max: flags.UnfinishedJobsMax = None,
    blocklist: flags.Blocklist = None,
    blocked_pictures: flags.BlockedPictures = None,
    safety: flags.Safety = None,
    checks_down_s_max: flags.ChecksDownSMax = None,
    sealed_key: flags.SealedKey = None,
    kept_by_law_days: flags.KeptByLawDays = None,
    reports_url: flags.ReportsUrl = None,
    reports_login: flags.ReportsLogin = None,
    reports_contact: flags.ReportsContact = None,
    marked_decoders: flags.MarkedDecoders = None,
    certificate_chain: flags.CertificateChain = None,
    certificate_key: flags.CertificateKey = None,
    certificate_command: flags.CertificateCommand = None,
    certificates_former: flags.CertificatesFormer = None,
    timestamp_url: flags.TimestampUrl = None,
    finish_processes: flags.FinishProcesses = None,
    link_ttl_s: flags.LinkTtlS = None,
    store_url: flags.StoreUrl = None,
    quarantine_url: flags.QuarantineUrl = None,
    s3_endpoint: flags.S3Endpoint = None,
    store_redirects: flags.StoreRedirects = None,
    shared_caches: flags.SharedCaches = None,
    purge_url: flags.PurgeUrl = None,
    purge_headers: flags.PurgeHeaders = None,
    kept_days: flags.KeptDays = None,
    webhooks_private: flags.WebhooksPrivate = None,
    record: flags.Record = None,
    idempotency_kept_s: flags.IdempotencyKeptS = None,
    log_format: flags.LogFormat = None,
    log_level: flags.LogLevel = None,
    end_with_stdin: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run the platform: API, page, dispatcher and engines.

    Each option can also be set as CALOTYPE_<NAME>, or in <home>/calotype.toml.
    """
    given = {name: value for name, value in locals().items() if name != "end_with_stdin"}
    from calotype.cli.logging_setup import configure_logging
    from calotype.cli.server import run_server
    from calotype.settings import Settings

    settings = Settings(**given)
    configure_logging(settings)

    def announce(url: str, new_key: str | None) -> None:
        _announce(url, new_key, settings.key_path)

    run_server(settings, announce, end_with_stdin=end_with_stdin)
    say("Calotype has stopped.")


def _announce(url: str, new_key: str | None, key_path: Path) -> None:
    if new_key is None:
        print(f"Calotype is at {url}/ (a key for it is in {key_path})", flush=True)
    else:
        print(f"Calotype is at {url}/#key={new_key}", flush=True)
        print(f"API key, printed this once and kept in {key_path}: {new_key}", flush=True)
