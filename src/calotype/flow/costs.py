"""What jobs will cost on each model, learnt from what engines measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from calotype.core.cost import CostModel
from calotype.core.nouns import Spec


class Costs:
    """One cost model for each model's name.

    It begins with what an engine measured when it loaded the model, and before that with a guess;
    a model that has made jobs is known better by them.
    """

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        """Start afresh, or from what ``kept`` gave before a restart."""
        self._models = {name: CostModel(**values) for name, values in (kept or {}).items()}
        self._begun: dict[str, CostModel] = {}

    def begin(self, costs: Mapping[str, CostModel]) -> None:
        """An engine is warm, and has measured these by model."""
        self._begun.update(costs)

    def predict_s(self, spec: Spec) -> float:
        """Device-seconds of all the job's images."""
        return self._known(spec).predict_s(spec)

    def is_known(self, spec: Spec) -> bool:
        """Whether the prediction is more than a guess."""
        return spec.model in self._models or spec.model in self._begun

    def learn(self, spec: Spec, device_s: float) -> None:
        """A whole job of this spec took ``device_s``."""
        self._models[spec.model] = self._known(spec).fitted(spec, device_s)

    def kept(self) -> dict[str, Any]:
        """What was learnt, as JSON, to keep over a restart."""
        return {name: asdict(model) for name, model in self._models.items()}

    def _known(self, spec: Spec) -> CostModel:
        return self._models.get(spec.model) or self._begun.get(spec.model) or CostModel()
