"""A row for each entry of a note, so that only what changed of one is written."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    kept = sa.table("notes", sa.column("name", sa.String), sa.column("data", sa.JSON))
    notes = op.get_bind().execute(sa.select(kept.c.name, kept.c.data)).all()
    op.drop_table("notes")
    table = op.create_table(
        "notes",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("entry", sa.String(200), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("name", "entry", name="pk_notes"),
    )
    rows = [
        {"name": name, "entry": entry, "data": value}
        for name, data in notes
        for entry, value in _entries(name, data).items()
    ]
    if rows:
        op.bulk_insert(table, rows)


def _entries(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """A note as it is written from now on: by tenant, and what was learnt by recipe."""
    if name == "line":
        entries = {"clock": data["clock"]}
        for tier, account in data["tiers"].items():
            entries[tier] = account | {"tenants": {}}
            entries |= {f"{tier}/{tenant}": one for tenant, one in account["tenants"].items()}
        return entries
    if name == "gate":
        used = {f"used/{tenant}": [begin, used_s] for tenant, begin, used_s in data["used"]}
        return used | {f"rate/{tier}/{tenant}": at for tenant, tier, at in data["even_at"]}
    if name == "eta":
        return {"start_s": data["start_s"], **data["ranges"]}
    return data
