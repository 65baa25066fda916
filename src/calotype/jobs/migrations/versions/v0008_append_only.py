"""The database itself keeps the event logs append-only.

One change is allowed: the preview of a picture that may not be seen is taken out of its step.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

_SQLITE = (
    """
    CREATE TRIGGER events_are_kept BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
    """,
    """
    CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
    WHEN NEW.job_id IS NOT OLD.job_id OR NEW.seq IS NOT OLD.seq OR NEW.kind IS NOT OLD.kind
        OR NEW.at IS NOT OLD.at OR json(NEW.data) IS NOT json_remove(OLD.data, '$.preview')
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
    """,
)
_POSTGRESQL = (
    """
    CREATE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'events are append-only'; END $$
    """,
    """
    CREATE TRIGGER events_are_kept BEFORE DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_events()
    """,
    """
    CREATE TRIGGER events_are_never_all_gone BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events()
    """,
    """
    CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events FOR EACH ROW
    WHEN (NEW.job_id IS DISTINCT FROM OLD.job_id OR NEW.seq IS DISTINCT FROM OLD.seq
        OR NEW.kind IS DISTINCT FROM OLD.kind OR NEW.at IS DISTINCT FROM OLD.at
        OR NEW.data::jsonb IS DISTINCT FROM OLD.data::jsonb - 'preview')
    EXECUTE FUNCTION refuse_change_of_events()
    """,
)


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE if is_sqlite else _POSTGRESQL:
        op.execute(statement)
