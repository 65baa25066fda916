"""Who of a tenant asked: keys belong to a user, and so does a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for table in ("keys", "jobs"):
        op.add_column(table, sa.Column("user", sa.String(100), nullable=False, server_default=""))
    keys = sa.table("keys", sa.column("id"), sa.column("user"))
    op.execute(sa.update(keys).values(user=keys.c.id))  # each as one made without a user
