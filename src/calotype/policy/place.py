"""Which engine: one that has the model warm and room for all of the job's rows.

It knows the engines, what is warm on each and how many rows each holds; nothing of whose turn it
is. A job's rows all go to one engine.
"""

from __future__ import annotations

from dataclasses import dataclass

WHOLE_ENGINE = 1_000_000  # rows: more than any engine has, so only an empty one fits, and no other


@dataclass
class _Engine:
    name: str
    models: tuple[str, ...]  # warm
    rows_max: int
    rows: int = 0  # held now

    def fits(self, rows: int) -> bool:
        """Room for that many more. An empty engine takes any job: it would never fit otherwise."""
        return self.rows == 0 or self.rows + rows <= self.rows_max


class Fleet:
    """The engines that are up, in the order they came up."""

    def __init__(self) -> None:
        self._engines: dict[str, _Engine] = {}

    def up(self, name: str, models: tuple[str, ...], rows_max: int) -> None:
        """Count on an engine that holds no rows."""
        assert rows_max > 0, "an engine without room"
        self._engines[name] = _Engine(name, models, rows_max)

    def gone(self, name: str) -> None:
        """Count on it no longer; not an error if it isn't known."""
        self._engines.pop(name, None)

    def take(self, name: str, rows: int) -> None:
        """Give an engine rows to hold."""
        engine = self._engines[name]
        assert engine.fits(rows), "more rows than the engine may hold"
        engine.rows += rows

    def free(self, name: str, rows: int) -> None:
        """Rows are off the engine; nothing to do if it is gone."""
        if name in self._engines:
            self._engines[name].rows -= rows
            assert self._engines[name].rows >= 0, "more rows came off the engine than it held"

    def turn(self) -> Turn:
        """Look for places, beginning with the job whose turn it is."""
        return Turn([one for one in self._engines.values() if one.fits(1)])


class Turn:
    """One look along the line, in order.

    A job that has its model warm but not enough room *holds* those engines: nobody behind it may
    take the rows it waits for, or a job of four images would never start among jobs of one. An
    engine so held is never empty, so no engine idles while a job that could run there waits.
    """

    def __init__(self, engines: list[_Engine]) -> None:
        self._open = engines
        self._models = {model for engine in engines for model in engine.models}  # warm there

    @property
    def is_over(self) -> bool:
        """True when no engine is left that anyone could start on."""
        return not self._open

    def engine_for(self, model: str, rows: int) -> str | None:
        """The engine this job starts on, or None; then what it waits for is held for it.

        Of those that fit, the one with most free rows; of equals, the one that came up first.
        """
        if model not in self._models:  # a long line of such jobs must be quick to pass
            return None
        warm = [one for one in self._open if model in one.models]
        fitting = [one for one in warm if one.fits(rows)]
        if fitting:
            return max(fitting, key=lambda one: one.rows_max - one.rows).name
        self._open = [one for one in self._open if model not in one.models]
        self._models.discard(model)
        return None
