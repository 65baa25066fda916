"""The probe itself: a logistic regression, calibrated, with a threshold for each bad label.

Learnt with labels weighed evenly; then a temperature and a bias for each label are fitted on
pictures that weren't learnt from (bias-corrected temperature scaling: Alexandari, Kundaje and
Shrikumar 2020, arXiv:1901.06852), since even weights and few pictures make chances that are no
chances. All of it is folded into one weight matrix and one bias, in float32: what is measured is
what is shipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.core.errors import OperatorError
from calotype.safety.thresholds import allowed

Floats = NDArray[np.float64]
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # of the regression (its C); the best on the calibration part
_PRIOR = 1.0  # as many pictures that say to change nothing: few told apart well would say all
_ROUNDS_MAX = 5_000
_EDGE = 1e-6  # thresholds stay inside 0..1 by this
_BINS = 15  # of the expected calibration error
_APART_MIN = 1e-6  # deviations below are of numbers that never change


@dataclass(frozen=True)
class Probe:
    """What was learnt."""

    labels: tuple[str, ...]  # sorted
    weight: NDArray[np.float32]  # labels x width
    bias: NDArray[np.float32]  # labels
    thresholds: Mapping[str, float]  # chances, of each bad label
    strength: float
    temperature: float
    error_before: float  # expected calibration error on the calibration part, uncalibrated

    def chances(self, rows: NDArray[np.float32]) -> Floats:
        """Of rows (n x width) the calibrated chances, n x labels."""
        return _softmax((rows @ self.weight.T + self.bias).astype(np.float64))


@dataclass(frozen=True)
class Rows:
    """Some pictures: their rows, and which label each has (its place among the labels)."""

    rows: NDArray[np.float32]  # n x width
    wanted: NDArray[np.int64]  # n


def fit(
    learnt: Rows,
    calibration: Rows,
    labels: Sequence[str],
    harmless: Sequence[str],
    *,
    false_positives: float,
    seed: int,
) -> Probe:
    """Learn, calibrate, and set the thresholds so that less than this share of harmless ones is
    refused.

    The share (0..1) is divided evenly among bad labels. Raises OperatorError if it doesn't settle.
    """
    middle = learnt.rows.mean(axis=0, dtype=np.float64)
    apart = learnt.rows.std(axis=0, dtype=np.float64)
    scale = np.where(apart > _APART_MIN, apart, 1.0)
    best: tuple[float, float, Floats, Floats] | None = None
    for strength in STRENGTHS:
        weight, bias = _learnt((learnt.rows - middle) / scale, learnt.wanted, strength, seed)
        logits = ((calibration.rows - middle) / scale) @ weight.T + bias
        loss = _loss(logits, calibration.wanted)
        if best is None or loss < best[0]:
            best = (loss, strength, weight, bias)
    assert best is not None
    _, strength, weight, bias = best
    logits = ((calibration.rows - middle) / scale) @ weight.T + bias
    temperature, shifts = calibrated(logits, calibration.wanted)
    folded = weight / scale / temperature
    probe = Probe(
        tuple(labels),
        folded.astype(np.float32),
        ((bias - weight @ (middle / scale)) / temperature + shifts).astype(np.float32),
        {},
        strength,
        temperature,
        calibration_error(_softmax(logits), calibration.wanted),
    )
    bad = [label for label in labels if label not in harmless]
    chances, kind = probe.chances(calibration.rows), np.array(labels)[calibration.wanted]
    thresholds = {
        label: threshold(
            chances[:, labels.index(label)], np.isin(kind, harmless), false_positives / len(bad)
        )
        for label in bad
    }
    return replace(probe, thresholds=thresholds)


def threshold(chances: Floats, is_harmless: NDArray[np.bool_], share: float) -> float:
    """The chance from which on less than this share of harmless pictures is refused, as shown.

    By the rule of ``safety.thresholds``: the upper end of Wilson's 95 % interval is under the
    share, or none of these is refused, where they are too few to show it. Halfway, by logit,
    between the highest of those that pass and the next higher chance of any.
    """
    ordered = np.sort(chances[is_harmless])[::-1]
    passing = ordered[min(allowed(len(ordered), share), len(ordered) - 1)]
    above = chances[chances > passing]
    next_one = float(above.min()) if above.size else 1.0 - _EDGE
    middle = (_logit(float(passing)) + _logit(next_one)) / 2
    found = float(np.clip(1 / (1 + np.exp(-middle)), _EDGE, 1 - _EDGE))
    return found if found > passing else float(np.nextafter(passing, 2.0))


def calibration_error(chances: Floats, wanted: NDArray[np.int64]) -> float:
    """Expected error of the likeliest label's chance, 15 bins of equal width (Guo et al. 2017)."""
    said, is_right = chances.max(axis=1), chances.argmax(axis=1) == wanted
    places = np.minimum((said * _BINS).astype(int), _BINS - 1)
    total = 0.0
    for place in range(_BINS):
        inside = places == place
        if inside.any():
            total += inside.mean() * abs(said[inside].mean() - is_right[inside].mean())
    return float(total)


def _learnt(
    rows: Floats, wanted: NDArray[np.int64], strength: float, seed: int
) -> tuple[Floats, Floats]:
    """Weights (labels x width) and biases; of two labels the regression has one row for both."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(
        C=strength, class_weight="balanced", max_iter=_ROUNDS_MAX, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(rows, wanted)
        except ConvergenceWarning as error:
            raise OperatorError(
                f"the regression doesn't settle in {_ROUNDS_MAX:,} rounds", field="encoder"
            ) from error
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate((-weight, weight)) / 2, np.concatenate((-bias, bias)) / 2
    return weight, bias


def calibrated(logits: Floats, wanted: NDArray[np.int64]) -> tuple[float, Floats]:
    """The temperature and the biases with which the chances say best what came."""
    from scipy.optimize import minimize

    prior = _PRIOR / len(wanted)
    known = np.eye(logits.shape[1])[wanted]

    def loss(asked: Floats) -> tuple[float, Floats]:
        cooled = logits / np.exp(asked[0])
        shifted = cooled + asked[1:]
        slope = (_softmax(shifted) - known) / len(wanted)
        value = _loss(shifted, wanted) + prior * float(asked @ asked)
        gradient = np.concatenate(([-(slope * cooled).sum()], slope.sum(axis=0)))
        return value, gradient + 2 * prior * asked

    found = minimize(loss, np.zeros(1 + logits.shape[1]), jac=True, method="L-BFGS-B")
    return float(np.exp(found.x[0])), found.x[1:]


def _loss(logits: Floats, wanted: NDArray[np.int64]) -> float:
    high = logits.max(axis=1, keepdims=True)
    total = high[:, 0] + np.log(np.exp(logits - high).sum(axis=1))
    return float((total - logits[np.arange(len(wanted)), wanted]).mean())


def _softmax(logits: Floats) -> Floats:
    shares: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances: Floats = shares / shares.sum(axis=1, keepdims=True)
    return chances


def _logit(chance: float) -> float:
    inside = min(max(chance, _EDGE), 1 - _EDGE)
    return float(np.log(inside / (1 - inside)))


def alone() -> Any:
    """A context with one thread for sums, so that they are the same with any number of cores.

    Raises OperatorError without scikit-learn.
    """
    try:
        import sklearn  # noqa: F401 - is it here?
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise OperatorError(
            "training needs scikit-learn: pip install 'calotype[training]'", field="scikit-learn"
        ) from error
    return threadpool_limits(1)
