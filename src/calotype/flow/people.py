"""People in the path of pictures, wired: who is kept out, what is reviewed, what is sealed."""

from __future__ import annotations

from calotype.flow.cases import CaseBook
from calotype.flow.conduct import Conductor
from calotype.flow.finish import Finisher
from calotype.flow.gallery import Gallery
from calotype.flow.review import Reviews
from calotype.flow.safeguards import Safeguards
from calotype.flow.sealed import sealed_parts
from calotype.jobs.store import JobStore
from calotype.settings import Settings


class People:
    """Made of settings; raises OperatorError if nothing can be sealed."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        finisher: Finisher,
        gallery: Gallery,
        guards: Safeguards,
    ) -> None:
        pictures, cases = sealed_parts(settings)
        self.cases = CaseBook(store, cases, kept_days=settings.kept_by_law_days)
        self.conductor = Conductor(store, guards.setup.conduct, self.cases, pictures)
        self.reviews = Reviews(
            store,
            finisher,
            gallery.pictures,
            pictures,
            conductor=self.conductor,
            cases=self.cases,
        )
        gallery.inputs.refused = self.conductor.sent
