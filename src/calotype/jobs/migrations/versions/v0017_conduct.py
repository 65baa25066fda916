"""Strikes, suspensions, and the cases that have to be kept and may have to be reported."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "strikes",
        sa.Column("number", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("user", sa.String(100), nullable=False),
        sa.Column("category", sa.String(100), nullable=False),
        sa.Column("is_severe", sa.Boolean, nullable=False),
        sa.Column("job_id", sa.String(40)),
        sa.Column("index", sa.Integer),
        sa.Column("check", sa.String(200), nullable=False),
        sa.Column("policy", sa.String(100), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lifted_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("number", name="pk_strikes"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_strikes_job_id"),
        sa.UniqueConstraint("job_id", "index", name="uq_strikes_job_id_index"),
    )
    op.create_index("ix_strikes_tenant_user_at", "strikes", ["tenant", "user", "at"])
    op.create_table(
        "suspensions",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("user", sa.String(100)),
        sa.Column("rule", sa.String(40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True)),
        sa.Column("lifted_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_suspensions"),
    )
    op.create_index("ix_suspensions_tenant", "suspensions", ["tenant"])
    op.create_table(
        "cases",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("user", sa.String(100), nullable=False),
        sa.Column("job_id", sa.String(40)),
        sa.Column("index", sa.Integer),
        sa.Column("category", sa.String(100), nullable=False),
        sa.Column("check", sa.String(200), nullable=False),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("policy", sa.String(100), nullable=False),
        sa.Column("file_sha256", sa.String(64), nullable=False),
        sa.Column("sealed", sa.String(100), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kept_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("begun", sa.String(16), nullable=False),
        sa.Column("host", sa.String(300), nullable=False),
        sa.Column("report_id", sa.String(100), nullable=False),
        sa.Column("file_id", sa.String(100), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_cases"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_cases_job_id"),
        sa.UniqueConstraint("job_id", "index", name="uq_cases_job_id_index"),
    )
    op.create_index("ix_cases_job_id", "cases", ["job_id"])
