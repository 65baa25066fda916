"""The schema's history, run by ``database.open_database``; no alembic.ini is needed.

To change the schema: change ``tables``, and add a revision to ``versions`` by hand, following the
newest. ``tests/rooms/test_jobs_database.py`` says whether the two agree.
"""
