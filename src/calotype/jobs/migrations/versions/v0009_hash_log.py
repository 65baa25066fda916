"""The log of delivered pictures, and the tree of hashes over it; the database keeps both as added.

One change is allowed: a sketch can be wiped.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_ENTRY = "number, image, mark, mark_key, files, phash, width, height, at, leaf"
_KEPT = (  # table, which events of it are refused
    ("hash_log", "DELETE"),
    ("hash_log", f"UPDATE OF {_ENTRY}"),
    ("hash_log_nodes", "DELETE"),
    ("hash_log_nodes", "UPDATE"),
)
_REFUSE = """
    CREATE FUNCTION refuse_change_of_hash_log() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the hash log is append-only'; END $$
"""


def upgrade() -> None:
    op.create_table(
        "hash_log",
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("image", sa.String(40), nullable=False),
        sa.Column("mark", sa.String(16), nullable=False),
        sa.Column("mark_key", sa.String(40), nullable=False),
        sa.Column("files", sa.JSON, nullable=False),
        sa.Column("phash", sa.String(16), nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("sketch", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_hash_log"),
        sa.UniqueConstraint("image", name="uq_hash_log_image"),
    )
    op.create_index("ix_hash_log_mark", "hash_log", ["mark"])
    op.create_table(
        "hash_log_files",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("sha256", "number", name="pk_hash_log_files"),
    )
    op.create_table(
        "hash_log_nodes",
        sa.Column("level", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("level", "number", name="pk_hash_log_nodes"),
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if not is_sqlite:
        op.execute(_REFUSE)
    for number, (table, event) in enumerate(_KEPT):
        refusal = (
            "BEGIN SELECT RAISE(ABORT, 'the hash log is append-only'); END"
            if is_sqlite
            else "FOR EACH ROW EXECUTE FUNCTION refuse_change_of_hash_log()"
        )
        op.execute(f"CREATE TRIGGER {table}_kept_{number} BEFORE {event} ON {table} {refusal}")
