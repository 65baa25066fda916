"""Finished rows as answers, in two stages: a picture is decoded, then the checks look at it.

In two, so that the checks look at all pictures at once that wait for them, while the next one is
decoded. The failure of either is that row's only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calotype.core.messages import Message, RowDone, RowFailed
from calotype.engine.checks.base import Picture
from calotype.engine.checks.running import Checks, Seen
from calotype.engine.passes import Passes
from calotype.engine.previews import pixels, scores
from calotype.engine.rows import Row

Answer = tuple[Message, bytes]


@dataclass(frozen=True)
class Made:
    """A decoded picture that no check has seen yet."""

    row: Row
    picture: Picture
    scores: dict[str, float]  # what its numbers alone say


class Answers:
    """Makes them; each stage in a thread of its own."""

    def __init__(
        self,
        passes: Passes,
        checks: Checks,
        clock: Callable[[], float],
        offer: Callable[[str, str, Seen, Picture], None] = lambda *seen: None,
    ) -> None:
        """``offer`` is told of each picture that was seen: model, row, what was said, pixels."""
        self._passes, self._checks, self._clock, self._offer = passes, checks, clock, offer

    def made(self, row: Row) -> Made | Answer:
        """A finished row's picture, or why there is none.

        Its clock goes on while passes run beside it, so on a busy CPU it counts a part of them.
        """
        begun_s = self._clock()
        try:
            picture = self._passes.decode(row)
            made = Made(row, pixels(picture).numpy(), scores(picture))
        except Exception as error:  # noqa: BLE001 - the other rows go on
            said = f"{type(error).__name__}: {error}"[:500]
            return RowFailed(row.command.row, said, retryable=True), b""
        row.device_s += self._clock() - begun_s
        return made

    def seen(self, every: Sequence[Made]) -> list[Answer]:
        """The answers of pictures of one model, looked at together."""
        begun_s, model = self._clock(), every[0].row.command.model
        found = self._checks.seen(model, [made.picture for made in every])
        share_s = (self._clock() - begun_s) / len(every)
        answers: list[Answer] = []
        for made, seen in zip(every, found, strict=True):
            command, read = made.row.command, made.row.read
            self._offer(model, command.row, seen, made.picture)
            made.row.device_s += share_s
            scores = made.scores | read.scores | seen.scores
            done = RowDone(
                *(command.row, command.width, command.height, scores, made.row.device_s),
                *(read.failed | seen.failed, read.degraded | seen.degraded),
                builds=read.builds | seen.builds,
            )
            answers.append((done, made.picture.tobytes()))
        return answers
