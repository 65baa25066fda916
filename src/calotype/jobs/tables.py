"""The tables, in types that SQLite and PostgreSQL share.

Knows no rules: what may be written when is said in ``moves``. A change here needs a migration
beside it; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC. SQLite drops the zone, so it's taken off and put back here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time: whose clock it means can't be known."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone can't be stored: {value}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the time back in UTC, whatever the database made of the zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Identifier(TypeDecorator[str]):
    """An id. What can't be one is looked for as the empty text, which nothing has.

    Callers name ids as they like, and not every text can be sent to every database.
    """

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Send what an id can be made of."""
        return value if value is None or (value.isascii() and value.isprintable()) else ""


# Constraints have names, so that a later migration can speak of them.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

jobs = Table(
    "jobs",
    metadata,
    # The order of admission; ids of one millisecond don't sort, and clocks can step back.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", Identifier, nullable=False),
    Column("tenant", String(100), nullable=False),
    Column("user", String(100), nullable=False),  # "" before there were users
    Column("tier", String(16), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("attempt", Integer, nullable=False),
    Column("token", Integer, nullable=False),
    Column("log_length", Integer, nullable=False),  # seq of the newest event: there are no gaps
    Column("error", JSON(none_as_null=True)),
    Column("refused", JSON(none_as_null=True)),  # images kept back: index, category, detail
    Column("fell_from", String(16)),  # the tier that was asked for, when its budget was spent
    Column("charged_s", Float),  # device-seconds taken from a budget at admission
    UniqueConstraint("id"),
    Index(None, "tenant", "number"),
    Index(None, "state", "tenant"),
)

events = Table(
    "events",
    metadata,
    Column("job_id", Identifier, ForeignKey(jobs.c.id), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("data", JSON, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Identifier, ForeignKey(jobs.c.id), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1, 2 ... within the job
    Column("token", Integer, nullable=False),
    Column("engine", String(100), nullable=False),
    Column("state", String(16), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("expires_at", Float),  # of its lease; Unix seconds by the database's clock
    Column("ended_at", UtcDateTime),
    Column("reason", String),
)

images = Table(
    "images",
    metadata,
    Column("id", Identifier, primary_key=True),
    Column("job_id", Identifier, ForeignKey(jobs.c.id), nullable=False),
    Column("index", Integer, nullable=False),  # 0..n-1 within the job
    Column("seed", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),  # pixels
    Column("height", Integer, nullable=False),  # pixels
    Column("sha256", String(64), nullable=False),
    Column("pixels_sha256", String(64), nullable=False),
    Column("formats", JSON, nullable=False),
    Column("removed_at", UtcDateTime),  # taken away: nobody gets it any more
    # The database takes no image without a verdict that allows its pixels by this policy.
    Column("policy", String(100), nullable=False, server_default="before-there-were-policies"),
    UniqueConstraint("job_id", "index"),
)

picture_files = Table(  # of images; what has no row here is never served
    "picture_files",
    metadata,
    Column("image_id", Identifier, ForeignKey(images.c.id), primary_key=True),
    Column("form", String(8), primary_key=True),
    Column("side", Integer, primary_key=True, autoincrement=False),  # pixels; 0: whole
    Column("name", String(200), nullable=False),  # in the store
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    UniqueConstraint("name"),
)

removals = Table(  # images that were taken away
    "removals",
    metadata,
    Column("image_id", Identifier, ForeignKey(images.c.id), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("by", String(100), nullable=False),
    Column("reason", String, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("files", JSON, nullable=False),  # that it had
    Column("ended_at", UtcDateTime),  # when its files were gone
    Column("purged_at", UtcDateTime),  # when caches were told
    Column("receipt", JSON(none_as_null=True)),
)

link_revocations = Table(
    "link_revocations",
    metadata,
    Column("tenant", String(100), primary_key=True),
    Column("count", Integer, nullable=False),
)

verdicts = Table(  # of finished pictures; what is in it never changes
    "verdicts",
    metadata,
    Column("pixels_sha256", String(64), primary_key=True),
    Column("policy", String(100), primary_key=True),  # its version
    Column("kind", String(16), primary_key=True),
    Column("check", String(200), nullable=False),
    Column("version", String(100), nullable=False),  # of the check
    Column("category", String(100)),
    Column("score", Float),
    Column("at", UtcDateTime, nullable=False),
)

pictures = Table(  # that people sent
    "pictures",
    metadata,
    Column("id", Identifier, primary_key=True),
    Column("tenant", String(100), nullable=False, index=True),
    Column("width", Integer, nullable=False),  # pixels
    Column("height", Integer, nullable=False),  # pixels
    Column("bytes", BigInteger, nullable=False),  # of its file
    Column("sha256", String(64), nullable=False),  # of its pixels
    Column("used_at", UtcDateTime, nullable=False, index=True),
    Column("ingredient", LargeBinary),  # the claim that it came with, archived
)

keys = Table(
    "keys",
    metadata,
    Column("id", Identifier, primary_key=True),
    Column("tenant", String(100), nullable=False),
    Column("user", String(100), nullable=False),
    Column("name", String(100), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the secret, hexadecimal
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    UniqueConstraint("digest"),
)

budgets = Table(
    "budgets",
    metadata,
    Column("tenant", String(100), primary_key=True),
    Column("fast_s", Float, nullable=False),  # device-seconds of the faster tiers in each period
    Column("when_spent", String(16), nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", String(100), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("job_id", Identifier, ForeignKey(jobs.c.id), nullable=False),
    Column("body_sha256", String(64), nullable=False),  # of the request, hexadecimal
    Column("created_at", UtcDateTime, nullable=False, index=True),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("spec_sha256", String(64), primary_key=True),  # of what was asked, hexadecimal
    Column("job_id", Identifier, ForeignKey(jobs.c.id), nullable=False),
    Column("reason", String, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

notes = Table(  # one row for each entry of a note
    "notes",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("entry", String(200), primary_key=True),
    Column("data", JSON, nullable=False),
)

hash_log = Table(  # of delivered pictures; what is in it never changes
    "hash_log",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # 0, 1, 2 ...
    Column("image", String(40), nullable=False),
    Column("mark", String(16), nullable=False, index=True),  # hexadecimal, as are phashes
    Column("mark_key", String(40), nullable=False),
    Column("files", JSON, nullable=False),  # SHA-256 by format
    Column("phash", String(16), nullable=False),
    Column("width", Integer, nullable=False),  # pixels
    Column("height", Integer, nullable=False),  # pixels
    Column("sketch", LargeBinary, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("leaf", LargeBinary, nullable=False),  # the entry's hash
    UniqueConstraint("image"),
)

hash_log_files = Table(  # to find entries by
    "hash_log_files",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
)

hash_log_nodes = Table(  # hashes of complete subtrees
    "hash_log_nodes",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),  # 0: leaves
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

webhooks = Table(  # where tenants want to be told of their jobs
    "webhooks",
    metadata,
    Column("id", Identifier, primary_key=True),
    Column("tenant", String(100), nullable=False, index=True),
    Column("url", String(2000), nullable=False),
    Column("changed", Integer, nullable=False),  # how often its secret was
    Column("changed_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    Column("disabled_reason", String, nullable=False),
)

webhook_kinds = Table(  # of events that a webhook wants
    "webhook_kinds",
    metadata,
    Column("webhook_id", Identifier, ForeignKey(webhooks.c.id), primary_key=True),
    Column("kind", String(32), primary_key=True),
)

webhook_messages = Table(  # the outbox
    "webhook_messages",
    metadata,
    Column("webhook_id", Identifier, ForeignKey(webhooks.c.id), primary_key=True),
    Column("job_id", Identifier, ForeignKey(jobs.c.id), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),  # of the event
    Column("kind", String(32), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", Float, nullable=False),  # Unix seconds
    Column("status", Integer),
    Column("reason", String, nullable=False),
    Column("ended_at", UtcDateTime),
    Index(None, "state", "due_at"),
)

webhook_tries = Table(  # of its messages, each sending
    "webhook_tries",
    metadata,
    Column("webhook_id", Identifier, primary_key=True),
    Column("job_id", Identifier, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1 is the first
    Column("at", UtcDateTime, nullable=False),
    Column("took_ms", Integer, nullable=False),
    Column("status", Integer),
    Column("reason", String, nullable=False),
    Column("answer", String, nullable=False),
    ForeignKeyConstraint(
        ["webhook_id", "job_id", "seq"],
        [webhook_messages.c.webhook_id, webhook_messages.c.job_id, webhook_messages.c.seq],
    ),
)
