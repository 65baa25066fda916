"""Every setting of the platform: a flag beats the environment beats the file beats the default.

Settings are read once, when a command starts, and never change. A value that may not be, or a key
of the file or a CALOTYPE_ variable that isn't a setting, is an ``OperatorError`` that names it and
where it came from. This module knows where things lie, not what they are for: no room below
imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from calotype.core import limits
from calotype.core.nouns import TIER_WEIGHTS, Tier
from calotype.settings.places import Places
from calotype.settings.sources import (
    ENV_PREFIX,
    HOME_DEFAULT,
    OTHER_VARIABLES,
    absolute,
    check_variables,
    fault_of,
    file_path,
    read_file,
)

__all__ = ["OTHER_VARIABLES", "REPORTS_TEST_HOST", "Settings"]

# Of the CyberTipline's reporting API: what is sent there reaches nobody.
REPORTS_TEST_HOST = "https://exttest.cybertip.org/ispws"

Folder = Annotated[Path, AfterValidator(absolute)]


def _of_tiers(value: Any) -> Any:
    """``turbo=10, fast=5`` as the table that a file may have in its place."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",")]
    names = [name.strip() for name, _, _ in pairs]
    for name, (_, equals, _) in zip(names, pairs, strict=True):
        if not equals or names.count(name) > 1:
            raise ValueError("write each tier once, as turbo=10,fast=5,relax=1")
    return {name: number.strip() for name, (_, _, number) in zip(names, pairs, strict=True)}


_ByTier = (NoDecode, BeforeValidator(_of_tiers))
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]
Days = Annotated[float, Field(gt=0.0, le=36_500.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Weights = Annotated[
    dict[Tier, Annotated[int, Field(ge=1, le=1_000)]],
    *_ByTier,
    AfterValidator(lambda weights: TIER_WEIGHTS | weights),
]


def _below_home(name: str) -> Callable[[dict[str, Any]], Path]:
    """Make the default of a path that lies in the home folder (``home`` is validated first)."""
    return lambda values: values["home"] / name if "home" in values else Path(name)


def _sqlite(values: dict[str, Any]) -> str:
    return f"sqlite+aiosqlite:///{_below_home('calotype.db')(values)}"


class Settings(Places, BaseSettings):
    """The settings; keyword arguments are the flags, and a flag that is None was not given.

    Raises OperatorError, with ``field`` (the setting) and ``source`` ("flag", "environment",
    "file" or "default").
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, env_ignore_empty=True
    )

    home: Folder = Field(
        default=Path(HOME_DEFAULT),
        validate_default=True,
        description="Folder of everything the platform keeps: database, pictures, secrets.",
    )
    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 for all."
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    engines: int = Field(
        default=1, ge=1, le=64, description="Engine processes to run, one for each device."
    )
    engine_threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Threads of one engine on the CPU; unset takes all cores.",
    )
    certificate_command: str | None = Field(
        default=None,
        description="Command that signs in place of a key (PKCS #11, KMS): data on stdin.",
    )
    certificates_former: Folder | None = Field(
        default=None,
        description="Folder of PEM chains that signed before: their pictures stay ours.",
    )
    marked_decoders: bool = Field(
        default=False,
        description="Decode with decoders that draw a mark (calotype watermark train), where any.",
    )
    timestamp_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/?#]+",
        description="Time-stamping authority (RFC 3161) that each signature is stamped by.",
    )
    engine_memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Memory of one engine, bytes; unset is most of its GPU, or its part of ours.",
    )
    engine_staging_bytes: int = Field(
        default=0,
        ge=0,
        description="Host memory of one engine for copies of models that made room, bytes.",
    )
    engine_arena: bool = Field(
        default=False,
        description="Have engines on a CPU act as if memory there could be torn, to try that.",
    )
    fragmentation_max: Share = Field(
        default=limits.FRAGMENTATION_MAX,
        description="Share of free memory outside its largest block, past which models move up.",
    )
    database_url: str = Field(
        default_factory=_sqlite,
        description="Job database, as postgresql://USER@HOST/NAME; unset is <home>/calotype.db.",
    )
    heartbeat_s: float = Field(
        default=limits.HEARTBEAT_S,
        ge=0.1,
        le=600.0,
        description="Seconds between an engine's signs of life: 2 missed are suspect, 3 are death.",
    )
    models_folder: Folder = Field(
        default_factory=_below_home("models"),
        description="Folder of models in diffusers' layout; unset is <home>/models.",
    )
    queued_jobs_max: int = Field(
        default=limits.QUEUED_JOBS_MAX,
        ge=1,
        description="Jobs that may wait in the line; one more is refused with 429.",
    )
    queued_jobs_per_tenant_max: int = Field(
        default=limits.QUEUED_JOBS_PER_TENANT_MAX,
        ge=1,
        description="Jobs of one tenant that may wait in the line; one more is refused with 429.",
    )
    weights: Weights = Field(
        default_factory=lambda: dict(TIER_WEIGHTS),
        description="Shares of device time while every tier has work: turbo=10,fast=5,relax=1.",
    )
    reserved: Annotated[dict[Tier, Share], *_ByTier] = Field(
        default_factory=dict,
        description="Share of the devices, 0 to 1, kept free for a tier that wants it: turbo=0.2.",
    )
    relax_wait_s_max: float = Field(
        default=limits.RELAX_WAIT_S_MAX,
        gt=0.0,
        allow_inf_nan=False,
        description="Seconds after which a waiting relax job is promoted.",
    )
    relax_share_min: Share = Field(
        default=limits.RELAX_SHARE_MIN,
        description="Share of device time that relax gets at least, 0 to 1, whatever is reserved.",
    )
    affinity_passes_max: int = Field(
        default=limits.AFFINITY_PASSES_MAX,
        ge=0,
        le=10_000,
        description="Jobs whose model is warm that may pass one whose model isn't (lookahead).",
    )
    affinity_s_max: float = Field(
        default=limits.AFFINITY_S_MAX,
        ge=0.0,
        allow_inf_nan=False,
        description="Seconds for which a job may be so passed.",
    )
    jobs_per_minute: Annotated[dict[Tier, Rate], *_ByTier] = Field(
        default_factory=dict,
        description="Jobs a minute that each tenant may ask for in a tier; unset is no bound.",
    )
    jobs_at_once: Annotated[dict[Tier, Count], *_ByTier] = Field(
        default_factory=dict,
        description="Of those a minute, jobs that may come in one moment; unset is 1.",
    )
    unfinished_jobs_max: Annotated[dict[Tier, Count], *_ByTier] = Field(
        default_factory=dict,
        description="Jobs of a tenant that may wait or run in a tier; unset is no bound.",
    )
    blocklist: Folder | None = Field(
        default=None,
        description="File of further terms that prompts may not have, beside the built-in list.",
    )
    blocked_pictures: Folder | None = Field(
        default=None,
        description="File of PDQ hashes of pictures that are blocked, sent or made.",
    )
    safety: Folder | None = Field(
        default=None,
        description="File of policies and picture checks; unset is <home>/safety.toml, if there.",
    )
    checks_down_s_max: float = Field(
        default=limits.CHECKS_DOWN_S_MAX,
        ge=0.0,
        allow_inf_nan=False,
        description="Seconds that a required check may be down before new jobs are refused.",
    )
    sealed_key: Folder | None = Field(
        default=None,
        description="File of the key of what is sealed, kept apart; unset is in <home>/secrets.",
    )
    kept_by_law_days: Days = Field(
        default=365.0, description="Days that severe cases are kept, whoever wants them deleted."
    )
    reports_url: str = Field(
        default=REPORTS_TEST_HOST,
        pattern=r"^https?://[^/?#]+(/[^?#]*)?$",
        description="Reporting service to which people send severe cases; at first its test host.",
    )
    reports_login: Folder | None = Field(
        default=None,
        description="File with user and password there, a line each; without it nothing is sent.",
    )
    reports_contact: str | None = Field(
        default=None, description="E-mail address of who reports, as a report names it."
    )
    certificate_chain: Folder | None = Field(
        default=None,
        description="PEM chain that signs pictures (C2PA); unset makes a development certificate.",
    )
    certificate_key: Folder | None = Field(
        default=None, description="PEM private key of the certificate chain."
    )
    finish_processes: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Processes that judge, mark, sign and store finished pictures.",
    )
    link_ttl_s: int = Field(
        default=limits.LINK_TTL_S,
        ge=1,
        le=7 * 24 * 3600,
        description="Seconds that a signed address of a picture stays good.",
    )
    store_url: str | None = Field(
        default=None,
        pattern=r"^s3://[^/?#]+(/[^?#]*)?$",
        description="Bucket that keeps pictures: s3://NAME/FOLDER; unset is the home folder.",
    )
    quarantine_url: str | None = Field(
        default=None,
        pattern=r"^s3://[^/?#]+(/[^?#]*)?$",
        description="Bucket that keeps withdrawn pictures apart; unset is <home>/quarantine.",
    )
    s3_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^/?#]+$",
        description="Address of a server that speaks S3, if it isn't Amazon's.",
    )
    store_redirects: bool = Field(
        default=False,
        description="Send browsers to the bucket, at presigned addresses, in place of the files.",
    )
    shared_caches: bool = Field(
        default=False,
        description="Let caches in front of the server (a CDN) keep pictures for all who ask.",
    )
    purge_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/?#]+",
        description="Address that is told, by POST, which pictures caches have to forget.",
    )
    purge_headers: str | None = Field(
        default=None, description="Headers of such a request, as Name: value; Name: value."
    )
    kept_days: Annotated[dict[Tier, Days], *_ByTier] = Field(
        default_factory=dict,
        description="Days that pictures of a tier are kept: relax=30; unset is for ever.",
    )
    webhooks_private: bool = Field(
        default=False,
        description="Let webhooks go to private addresses, and over plain http.",
    )
    record: Folder | None = Field(
        default=None,
        description="File to which the line's events and decisions are added, to replay them.",
    )
    idempotency_kept_s: int = Field(
        default=limits.IDEMPOTENCY_KEPT_S,
        ge=60,
        le=30 * 24 * 3600,
        description="Seconds that an Idempotency-Key is kept: sent again it makes no other job.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Log lines for people (text) or for machines (json)."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is worth a log line."
    )

    def __init__(self, **flags: Any) -> None:
        flags = {name: value for name, value in flags.items() if value is not None}
        check_variables(type(self).model_fields)
        try:
            super().__init__(**flags)
        except ValidationError as error:
            raise fault_of(error, flags) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file; no .env file and no secrets folder."""
        assert isinstance(init_settings, InitSettingsSource)
        path = file_path(init_settings.init_kwargs)
        values = read_file(path, settings_cls.model_fields) if path else {}
        file = InitSettingsSource(settings_cls, values)
        return init_settings, env_settings, file

    @property
    def database(self) -> str:
        """SQLAlchemy address of the job store."""
        return self.database_url
