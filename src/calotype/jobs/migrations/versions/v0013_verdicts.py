"""Verdicts, which never change; and no image without one that allows its pixels by its policy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

BEFORE = "before-there-were-policies"  # the policy of images that were delivered until now

_OF_BEFORE = """
    INSERT INTO verdicts (pixels_sha256, policy, kind, "check", version, at)
    SELECT DISTINCT pixels_sha256, policy, 'allow', 'pictures', '1', CURRENT_TIMESTAMP FROM images
"""
_HAS_ONE = """
    EXISTS (SELECT 1 FROM verdicts WHERE verdicts.pixels_sha256 = NEW.pixels_sha256
            AND verdicts.policy = NEW.policy AND verdicts.kind = 'allow')
"""
_NEEDED = "an image needs a verdict that allows it"
_KEPT = "verdicts are kept as they were given"
_SQLITE = (
    f"""
    CREATE TRIGGER images_are_allowed BEFORE INSERT ON images WHEN NOT {_HAS_ONE}
    BEGIN SELECT RAISE(ABORT, '{_NEEDED}'); END
    """,
    f"""
    CREATE TRIGGER images_stay_allowed BEFORE UPDATE OF pixels_sha256, policy ON images
    WHEN NOT {_HAS_ONE} BEGIN SELECT RAISE(ABORT, '{_NEEDED}'); END
    """,
    f"""
    CREATE TRIGGER verdicts_are_kept BEFORE DELETE ON verdicts
    BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END
    """,
    f"""
    CREATE TRIGGER verdicts_are_not_changed BEFORE UPDATE ON verdicts
    BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END
    """,
)
_POSTGRESQL = (
    f"""
    CREATE FUNCTION refuse_unjudged_images() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN
        IF NOT {_HAS_ONE} THEN RAISE EXCEPTION '{_NEEDED}' USING ERRCODE = '23514'; END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER images_are_allowed BEFORE INSERT OR UPDATE OF pixels_sha256, policy ON images
    FOR EACH ROW EXECUTE FUNCTION refuse_unjudged_images()
    """,
    f"""
    CREATE FUNCTION refuse_change_of_verdicts() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '{_KEPT}'; END $$
    """,
    """
    CREATE TRIGGER verdicts_are_kept BEFORE UPDATE OR DELETE ON verdicts
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_verdicts()
    """,
    """
    CREATE TRIGGER verdicts_are_never_all_gone BEFORE TRUNCATE ON verdicts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_verdicts()
    """,
)


def upgrade() -> None:
    op.create_table(
        "verdicts",
        sa.Column("pixels_sha256", sa.String(64), nullable=False),
        sa.Column("policy", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("check", sa.String(200), nullable=False),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("category", sa.String(100)),
        sa.Column("score", sa.Float),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("pixels_sha256", "policy", "kind", name="pk_verdicts"),
    )
    policy = sa.Column("policy", sa.String(100), nullable=False, server_default=BEFORE)
    op.add_column("images", policy)
    op.execute(_OF_BEFORE)
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE if is_sqlite else _POSTGRESQL:
        op.execute(statement)
