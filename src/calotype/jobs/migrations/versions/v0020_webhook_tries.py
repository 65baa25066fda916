"""The tries of webhooks' messages, with what receivers answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "webhook_tries",
        sa.Column("webhook_id", sa.String(40), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("took_ms", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("answer", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("webhook_id", "job_id", "seq", "number", name="pk_webhook_tries"),
        sa.ForeignKeyConstraint(
            ["webhook_id", "job_id", "seq"],
            ["webhook_messages.webhook_id", "webhook_messages.job_id", "webhook_messages.seq"],
            name="fk_webhook_tries_webhook_id",
        ),
    )
