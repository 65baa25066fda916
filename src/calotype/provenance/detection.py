"""Finds a mark in a picture, and how sure that is.

First as if nothing but cutting, mirroring and quarter turns had happened: the picture's small
differences are folded onto one tile, and its spectrum compared with each key's pilot at all shifts.
If that says nothing, the likeliest turns and scales of ``geometry`` are undone and tried the same
way. What one picture should hold is looked for with all of its waves, not the pilot's alone
(``confirm``): where it is known what to look for, much less of a mark is proof.

The threshold is not fitted to pictures. For a picture that has nothing to do with a key, each
comparison exceeds t with probability exp(-t**2 / 2) at most (``Carriers.find``). FALSE_MAX, what is
allowed in all, is divided by the number of comparisons that could be made, and t follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from calotype.provenance.carriers import SIDE, Carriers, Complexes, carriers
from calotype.provenance.folding import both_ways, folded, levels_of, middle, positions, undone
from calotype.provenance.geometry import Guess, Heard, guesses, heard
from calotype.provenance.watermark import Grey, MarkKey, Pixels

# Probability that an unmarked picture is called marked, all keys together; and the same again that
# it is called so for what it looks like.
FALSE_MAX = 1e-9
SEARCH_MAX = 768  # pixels: the same, while turns and scales are tried
GUESSES = 24  # turns and scales that are tried
REFINED = 2  # of them, by smaller and smaller steps
ROUNDS = 4  # of such steps, each half of the one before
# Comparisons of the first look: eight positions, all shifts. Of the search, the same for each of
# 2**25 turns and scales: a grid has under 2**15, and 625 can be reached from each in four rounds.
DIRECT = 8 * SIDE * SIDE
SEARCHED = 2**25 * DIRECT
CANDIDATES_MAX = 20  # pictures whose mark is looked for in one picture
# The same eight positions and shifts, as large as it is and as large as it was.
CONFIRMED = 2 * CANDIDATES_MAX * DIRECT


@dataclass(frozen=True)
class Mark:
    """A mark that was found."""

    key: str  # id of its key
    payload: int | None  # None: there is a mark, but too little is left of its payload
    statistic: float
    threshold: float
    false_max: float  # the probability that an unmarked picture gives such a statistic is below it
    mended: int  # symbols of the payload that had to be mended, of 12
    placed: Guess  # what was done to the picture since


@dataclass(frozen=True)
class _Found:
    statistic: float
    spectrum: Complexes
    shift: tuple[int, int]
    placed: Guess


def detect(pixels: Pixels, keys: Sequence[MarkKey], *, search: bool = True) -> Mark | None:
    """The mark of one of the keys, or None. ``search`` for turns and scales too.

    ``pixels``: height x width x 3, at least 32 each way, else nothing can be found.
    """
    if min(pixels.shape[:2]) < 32 or not keys:
        return None
    levels = levels_of(pixels)
    for key, best in _best_direct(levels[1], keys):
        if best.statistic >= threshold(DIRECT, len(keys)):
            return _mark(key, best, DIRECT, len(keys))
    if not search:
        return None
    enough = threshold(SEARCHED, len(keys))
    levels = {by: middle(level, SEARCH_MAX) for by, level in levels.items()}
    lines = heard(levels[1])
    for key in keys:
        best = _search(levels, lines, carriers(key.secret), enough)
        if best.statistic >= enough:
            return _mark(key, best, SEARCHED, len(keys))
    return None


def confirm(
    pixels: Pixels, candidates: Sequence[tuple[MarkKey, int, float]]
) -> tuple[int, Mark] | None:
    """Which of a few pictures' marks is in this one, and the mark; None if none is.

    ``pixels``: as above, or grey. A candidate: the key that the picture was marked with, its
    payload, and the scale at which this one would be all of it. Every wave of a payload is known,
    so all of them say together whether it is there: the same picture reaches 1.7 times what the
    pilot does, at about the same threshold.
    """
    if min(pixels.shape[:2]) < 32 or not candidates:
        return None
    assert len(candidates) <= CANDIDATES_MAX
    levels = levels_of(pixels)
    spectra = {1.0: list(positions(folded(levels[1])))}
    best: tuple[float, int, Guess] | None = None
    for at, (key, payload, scale) in enumerate(candidates):
        if scale not in spectra:
            whole = folded(undone(levels, Guess(0.0, scale)))
            spectra[scale] = list(positions(whole, scale))
        waves = carriers(key.secret).of_payload(payload)
        for placed, spectrum in [*spectra[1.0], *(spectra[scale] if scale != 1.0 else ())]:
            statistic, _ = waves.find(spectrum)
            if best is None or statistic > best[0]:
                best = statistic, at, placed
    assert best is not None
    statistic, at, placed = best
    enough = math.sqrt(2 * math.log(CONFIRMED / FALSE_MAX))
    if statistic < enough:
        return None
    key, payload, _ = candidates[at]
    chance = min(1.0, CONFIRMED * math.exp(-(statistic**2) / 2))
    return at, Mark(key.id, payload, statistic, enough, chance, 0, placed)


def threshold(comparisons: int, keys: int) -> float:
    """What the statistic has to reach; half of FALSE_MAX goes to each of the two looks."""
    return math.sqrt(2 * math.log(2 * comparisons * keys / FALSE_MAX))


def _mark(key: MarkKey, found: _Found, comparisons: int, keys: int) -> Mark:
    read = carriers(key.secret).read(found.spectrum, found.shift)
    chance = min(1.0, comparisons * keys * math.exp(-(found.statistic**2) / 2))
    return Mark(
        key=key.id,
        payload=read.payload,
        statistic=found.statistic,
        threshold=threshold(comparisons, keys),
        false_max=chance,
        mended=read.mended,
        placed=found.placed,
    )


def _best_direct(residual: Grey, keys: Sequence[MarkKey]) -> Iterator[tuple[MarkKey, _Found]]:
    spectra = list(positions(folded(residual)))
    for key in keys:
        yield key, _best(carriers(key.secret), spectra)


def _best(waves: Carriers, spectra: Sequence[tuple[Guess, Complexes]]) -> _Found:
    found = []
    for placed, spectrum in spectra:
        statistic, shift = waves.find(spectrum)
        found.append(_Found(statistic, spectrum, shift, placed))
    return max(found, key=lambda each: each.statistic)


def _search(levels: Mapping[int, Grey], lines: Heard, waves: Carriers, enough: float) -> _Found:
    """The best of the likeliest turns and scales; the first that is good enough ends the search."""
    likely, step = guesses(lines, waves.pilot_at, GUESSES)
    tried: list[_Found] = []
    for guess in likely:
        tried.append(_try(levels, waves, guess))
        if tried[-1].statistic >= enough:
            break
    tried.sort(key=lambda found: -found.statistic)
    best = tried[0]
    for found in tried[: 1 if best.statistic >= enough else REFINED]:
        refined, by = found, step / 2
        for _ in range(ROUNDS):
            around = [_try(levels, waves, guess) for guess in _near(refined.placed, by)]
            refined, by = max([refined, *around], key=lambda f: f.statistic), by / 2
        best = max(best, refined, key=lambda f: f.statistic)
    return best


def _near(guess: Guess, step: float) -> Iterator[Guess]:
    degrees = math.degrees(step)
    for turn, scale in ((degrees, 0.0), (-degrees, 0.0), (0.0, step), (0.0, -step)):
        yield replace(guess, turn=guess.turn + turn, scale=guess.scale * math.exp(scale))


def _try(levels: Mapping[int, Grey], waves: Carriers, guess: Guess) -> _Found:
    """Undo a guess and compare."""
    return _best(waves, both_ways(folded(undone(levels, guess)), guess))
