"""Which images of a job were kept back; and notes, which outlive a restart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("refused", sa.JSON))
    op.create_table(
        "notes",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_notes"),
    )
