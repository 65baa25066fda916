"""The files of delivered pictures, pictures taken away, links revoked, claims that were sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "picture_files",
        sa.Column("image_id", sa.String(40), nullable=False),
        sa.Column("form", sa.String(8), nullable=False),
        sa.Column("side", sa.Integer, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("image_id", "form", "side", name="pk_picture_files"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_picture_files_image_id"),
        sa.UniqueConstraint("name", name="uq_picture_files_name"),
    )
    op.create_table(
        "removals",
        sa.Column("image_id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("by", sa.String(100), nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("files", sa.JSON, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("purged_at", sa.DateTime(timezone=True)),
        sa.Column("receipt", sa.JSON(none_as_null=True)),
        sa.PrimaryKeyConstraint("image_id", name="pk_removals"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_removals_image_id"),
    )
    op.create_table(
        "link_revocations",
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_link_revocations"),
    )
    op.add_column("images", sa.Column("removed_at", sa.DateTime(timezone=True)))
    op.add_column("pictures", sa.Column("ingredient", sa.LargeBinary))
    _record_what_there_is()


def _record_what_there_is() -> None:
    """Pictures of before lie under names made of their ids; their hashes are in the hash log."""
    images = sa.table("images", sa.column("id"), sa.column("sha256"), sa.column("formats", sa.JSON))
    hash_log = sa.table("hash_log", sa.column("image"), sa.column("files", sa.JSON))
    files = sa.table(
        "picture_files",
        *(sa.column(name) for name in ("image_id", "form", "side", "name", "sha256", "bytes")),
    )
    conn = op.get_bind()
    logged = {row.image: row.files for row in conn.execute(sa.select(hash_log))}
    rows = []
    for image in conn.execute(sa.select(images)).all():
        hashes = {"png": image.sha256} | logged.get(image.id, {})
        rows += [
            {
                "image_id": image.id,
                "form": form,
                "side": 0,
                "name": f"{image.id[-2:]}/{image.id}.{form}",
                "sha256": hashes[form],
                "bytes": 0,
            }
            for form in image.formats
            if form in hashes  # another is made anew of the PNG when somebody asks for it
        ]
    if rows:
        conn.execute(sa.insert(files), rows)
