"""What is on which engine, for people and for whoever watches: engines, models and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from calotype.core.nouns import ModelInfo
from calotype.pool.reports import EngineHealth


@dataclass
class Counts:
    """Since the server's start."""

    warm_hits: int = 0  # jobs that came while an engine had their model
    warm_misses: int = 0  # ... while none had it
    loads: int = 0  # that the line decided and that came about
    loads_failed: int = 0
    loads_staged: int = 0  # of them, from copies in host memory
    evictions: int = 0  # models that made room
    staged: int = 0  # of them, those of which a copy was kept
    laid_anew: int = 0  # times that models left so that free memory is in one piece
    bytes_loaded: int = 0  # weights of those loads
    load_s: float = 0.0  # those loads took, in all
    memory_short: int = 0  # passes that found no room, and were made smaller


def where(
    engines: Sequence[EngineHealth],
    models: Iterable[ModelInfo],
    counts: Counts,
    expected_s: Callable[[str], float],
) -> dict[str, Any]:
    """All of it, as JSON; ``expected_s`` is how long a model's load takes."""
    asked = counts.warm_hits + counts.warm_misses
    return {
        "engines": [_engine(one, expected_s) for one in engines],
        "models": {model.name: _places(model, engines) for model in models},
        "counts": {
            **vars(counts),
            "load_s": round(counts.load_s, 3),
            "warm_hit_rate": round(counts.warm_hits / asked, 4) if asked else None,
        },
    }


def _engine(health: EngineHealth, expected_s: Callable[[str], float]) -> dict[str, Any]:
    loading = None
    if (state := health.loading) is not None:
        left_s = expected_s(state.model) - state.since_s
        loading = {
            "model": state.model,
            "bytes_done": state.done,
            "bytes_total": state.total,
            "left_s": round(max(0.0, left_s), 1),
        }
    return {
        "name": health.name,
        "state": health.state.value,
        "device": health.device,
        "models": list(health.models),
        "models_failed": dict(health.models_failed),
        "loading": loading,
        "budget_bytes": health.budget_bytes,
        "bytes": dict(health.bytes),
        "staging_bytes": health.staging_bytes,
        "staged_bytes": health.staged_bytes,
        "models_staged": list(health.models_staged),
        "memory": _memory(health),
        "reserves": {line.name: line.bytes for line in health.reserves},
    }


def _places(model: ModelInfo, engines: Iterable[EngineHealth]) -> dict[str, Any]:
    """Where a model is: by engine "warm", "loading", "failed" or "staged"; else it is on disk."""
    places = {}
    for engine in engines:
        if model.name in engine.models:
            places[engine.name] = "warm"
        elif engine.loading is not None and engine.loading.model == model.name:
            places[engine.name] = "loading"
        elif model.name in engine.models_failed:
            places[engine.name] = "failed"
        elif model.name in engine.models_staged:
            places[engine.name] = "staged"
    return {"build": model.build, "engines": places}


def _memory(engine: EngineHealth) -> dict[str, Any] | None:
    """How an engine's free memory lies; None where it doesn't say."""
    if (memory := engine.memory) is None:
        return None
    return {
        "free_bytes": memory.free,
        "largest_bytes": memory.largest,
        "fragmentation": round(memory.index, 4),
    }
