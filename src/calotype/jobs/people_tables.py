"""The tables of what people decide and what follows from it; beside those in ``tables``.

The audit trail is append-only: the database itself changes and deletes nothing of it.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
)

from calotype.jobs.tables import Identifier, UtcDateTime, jobs, metadata

audit = Table(  # who did what, in one chain of hashes
    "audit",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 ...
    Column("subject", Identifier, nullable=False, index=True),  # id of a review, a case ...
    Column("kind", String(32), nullable=False),
    Column("by", String(300), nullable=False),
    Column("data", JSON, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("chain", String(64), nullable=False),  # SHA-256 of the one before and of this
)

reviews = Table(  # pictures that a check didn't allow
    "reviews",
    metadata,
    Column("id", Identifier, primary_key=True),
    Column("job_id", Identifier, ForeignKey(jobs.c.id), nullable=False),
    Column("index", Integer, nullable=False),
    Column("image", Identifier, nullable=False),
    Column("tenant", String(100), nullable=False, index=True),
    Column("asker", String(201), nullable=False),  # tenant/user
    Column("category", String(100)),
    Column("is_severe", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("check", String(200), nullable=False),
    Column("version", String(100), nullable=False),
    Column("policy", String(100), nullable=False),
    Column("score", Float),
    Column("pixels_sha256", String(64), nullable=False),
    Column("sealed", String(100), nullable=False),  # in the sealed store; "" if it isn't there
    Column("opened_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("appeal", String, nullable=False),
    UniqueConstraint("job_id", "index"),
    Index(None, "state", "opened_at"),
)

strikes = Table(
    "strikes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(100), nullable=False),
    Column("user", String(100), nullable=False),
    Column("category", String(100), nullable=False),
    Column("is_severe", Boolean, nullable=False),
    Column("job_id", Identifier, ForeignKey(jobs.c.id)),  # of words that were refused: none
    Column("index", Integer),
    Column("check", String(200), nullable=False),
    Column("policy", String(100), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("lifted_at", UtcDateTime),
    UniqueConstraint("job_id", "index"),
    Index(None, "tenant", "user", "at"),
)

suspensions = Table(
    "suspensions",
    metadata,
    Column("id", Identifier, primary_key=True),
    Column("tenant", String(100), nullable=False, index=True),
    Column("user", String(100)),  # NULL: all of the tenant
    Column("rule", String(40), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("until", UtcDateTime),  # NULL: until a person lifts it
    Column("lifted_at", UtcDateTime),
)

cases = Table(  # what has to be kept, and may have to be reported
    "cases",
    metadata,
    Column("id", Identifier, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("tenant", String(100), nullable=False),
    Column("user", String(100), nullable=False),
    Column("job_id", Identifier, ForeignKey(jobs.c.id), index=True),
    Column("index", Integer),
    Column("category", String(100), nullable=False),
    Column("check", String(200), nullable=False),
    Column("version", String(100), nullable=False),
    Column("policy", String(100), nullable=False),
    Column("file_sha256", String(64), nullable=False),  # of what is sealed, as it was
    Column("sealed", String(100), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("kept_until", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False),  # of its report
    Column("begun", String(16), nullable=False),  # the call whose answer isn't known; "": none
    Column("host", String(300), nullable=False),  # to which it is sent; "": to none yet
    Column("report_id", String(100), nullable=False),
    Column("file_id", String(100), nullable=False),
    Column("finished_at", UtcDateTime),
    UniqueConstraint("job_id", "index"),
)
