"""What people decide, and what follows for accounts: all that is kept of it, in one place."""

from __future__ import annotations

from calotype.jobs.audit import Audit
from calotype.jobs.cases import Cases
from calotype.jobs.database import Database
from calotype.jobs.reviews import Change, Reviews
from calotype.jobs.strikes import Strikes


class People:
    """Reviews, strikes and cases of one database, and the trail of who did what."""

    def __init__(self, database: Database, change: Change) -> None:
        self.audit = Audit(database)
        self.reviews = Reviews(database, change)
        self.strikes = Strikes(database)
        self.cases = Cases(database)
