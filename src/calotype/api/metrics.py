"""What the warm pool knows, for Prometheus: a scrape shows an operator's key.

Labels are engines, lines of their ledgers, tiers and places of models, and nothing that people
choose: no tenants, users, models or words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from calotype.api.context import CalledPlatform, OperatorKey

router = APIRouter(tags=["health"])

# Counts since the server's start, by their names in ``where``.
_COUNTS = {
    "warm_hits": "Jobs that came while an engine had their model.",
    "warm_misses": "Jobs that came while no engine had their model.",
    "loads_staged": "Loads of models from copies in host memory.",
    "loads_failed": "Loads of models that came to nothing.",
    "evictions": "Models that made room for others.",
    "staged": "Models of which a copy was kept in host memory when they made room.",
    "laid_anew": "Times that models were loaded again for free memory to be one block.",
    "bytes_loaded": "Bytes of weights that were loaded.",
    "memory_short": "Passes that found no room and were made smaller.",
}


_PLACES = {"warm": "models", "staged": "models_staged", "failed": "models_failed"}


@router.get("/metrics")
async def metrics(platform: CalledPlatform, _key: OperatorKey) -> Response:
    """Answer in Prometheus' text format."""
    registry = CollectorRegistry()
    here = platform.installation
    registry.register(_Collector(here.where(), here.depths()))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Collector:
    """One scrape."""

    def __init__(self, told: Mapping[str, Any], depths: Mapping[str, Mapping[str, int]]) -> None:
        self._told, self._depths = told, depths

    def collect(self) -> Iterator[Metric]:
        """Every metric with its samples."""
        yield from self._engines()
        yield from _jobs(self._depths)
        counts = self._told["counts"]
        for name, said in _COUNTS.items():
            yield CounterMetricFamily(f"calotype_{name}", said, value=counts[name])
        yield SummaryMetricFamily(
            "calotype_load_seconds",
            "Seconds that loads of models took.",
            count_value=counts["loads"],
            sum_value=counts["load_s"],
        )

    def _engines(self) -> Iterator[Metric]:
        engines = self._told["engines"]
        lines = _gauge("memory_bytes", "Device memory by line of its ledger.", "line")
        budgets = _gauge("memory_budget_bytes", "Device memory that an engine may use.")
        staged = _gauge("staged_bytes", "Host memory that copies of models take.")
        staging = _gauge("staging_budget_bytes", "Host memory for copies of models.")
        models = _gauge("models", "Models of an engine: warm, staged or failed.", "place")
        free = _gauge("memory_free_bytes", "Free device memory, where it is known how it lies.")
        torn = _gauge("fragmentation_ratio", "Share of it outside its largest block.")
        ready = _gauge("ready", "1 while an engine takes work.")
        for it in engines:
            name = it["name"]
            for line, count in it["bytes"].items():
                lines.add_metric([name, line], count)
            budgets.add_metric([name], it["budget_bytes"])
            staged.add_metric([name], it["staged_bytes"])
            staging.add_metric([name], it["staging_bytes"])
            for place, held in _PLACES.items():
                models.add_metric([name, place], len(it[held]))
            ready.add_metric([name], it["state"] == "ready")
            if (memory := it["memory"]) is not None:
                free.add_metric([name], memory["free_bytes"])
                torn.add_metric([name], memory["fragmentation"])
        yield from (lines, budgets, staged, staging, models, free, torn, ready)


def _jobs(depths: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
    for state, tiers in depths.items():
        said = f"Jobs {state}, by tier."
        jobs = GaugeMetricFamily(f"calotype_jobs_{state}", said, labels=["tier"])
        for tier, count in tiers.items():
            jobs.add_metric([tier], count)
        yield jobs


def _gauge(name: str, said: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"calotype_engine_{name}", said, labels=["engine", *labels])
