"""Jobs that ended every engine they met, by what they asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "quarantine",
        sa.Column("spec_sha256", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("spec_sha256", name="pk_quarantine"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_quarantine_job_id"),
    )
