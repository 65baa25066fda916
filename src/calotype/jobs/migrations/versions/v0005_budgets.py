"""What tenants may use of the faster tiers, and what each job took of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("fell_from", sa.String(16)))
    op.add_column("jobs", sa.Column("charged_s", sa.Float))
    op.create_table(
        "budgets",
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("fast_s", sa.Float, nullable=False),
        sa.Column("when_spent", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_budgets"),
    )
