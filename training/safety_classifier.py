"""Trains the prompt classifier that ships with the package, and writes its card.

    python -m training.safety_classifier

A logistic regression for each label over n-grams of letters (2 to 5, within words) and of words
(1 and 2). Each label's threshold is the lowest at which the share of harmless prompts that it
refuses, of those not learned from, is at most ``FALSE_POSITIVES``. About a minute on two cores.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion

from calotype.safety.classifier import (
    CHAR_NGRAMS,
    LABELS,
    ONE_IS_ENOUGH,
    SHIPPED,
    WORD_NGRAMS,
    TextClassifier,
)
from calotype.safety.lists import Lists
from calotype.safety.views import views
from training.safety_text import Phrases, asking, examples, harmless

SEED = 2026
EACH = 1500  # prompts of each label
FALSE_POSITIVES = 0.001  # of harmless prompts, for each of seven labels: under 0.7 % together
LOOKS_BAD_POSITIVES = 0.02  # of harmless prompts that look bad, for each label, at most
LOWEST = 0.5  # a threshold under it would refuse what is merely unlike all that was learned
EASED = 0.4  # logits by which thresholds are lower then: one word alone isn't counted any more
CHAR_FEATURES, WORD_FEATURES = 60_000, 20_000
STRENGTH = 6.0  # scikit-learn's C: the inverse of the penalty on the weights
MEASURED = 10_000  # harmless prompts that thresholds are set on, and as many that are measured
CARD = Path(__file__).parent / "cards" / "prompt-classifier.md"

Floats = NDArray[np.float64]


def vectorizers() -> tuple[TfidfVectorizer, TfidfVectorizer]:
    """The two blocks of features; they read the plain view, which is lower case already."""
    plain = {"lowercase": False, "sublinear_tf": True, "dtype": np.float32}
    chars = TfidfVectorizer(
        analyzer="char_wb", ngram_range=CHAR_NGRAMS, max_features=CHAR_FEATURES, min_df=3, **plain
    )
    words = TfidfVectorizer(
        token_pattern=r"\S+",  # noqa: S106 - no password
        ngram_range=WORD_NGRAMS,
        max_features=WORD_FEATURES,
        min_df=3,
        **plain,
    )
    return chars, words


def plain(text: str) -> str:
    """The text as the classifier reads it, but for windows."""
    return views(text).words["plain"].strip()


def fit(pairs: list[tuple[str, str | None]]) -> TextClassifier:
    """A classifier with thresholds of one half, from prompts and what they ask for."""
    texts = [plain(text) for text, _ in pairs]
    chars, words = vectorizers()
    features = FeatureUnion([("chars", chars), ("words", words)]).fit_transform(texts)
    weights, bias = [], []
    for label in LABELS:
        asked = np.array([each == label for _, each in pairs])
        model = LogisticRegression(C=STRENGTH, solver="liblinear").fit(features, asked)
        weights.append(model.coef_[0])
        bias.append(model.intercept_[0])
    return TextClassifier(
        list(chars.get_feature_names_out()),
        list(words.get_feature_names_out()),
        weights=np.array(weights, np.float16).astype(np.float32),  # as they will be stored
        bias=np.array(bias, np.float32),
        idf=np.concatenate([chars.idf_, words.idf_]).astype(np.float16).astype(np.float32),
        thresholds=dict.fromkeys(LABELS, 0.5),
    )


def scores(classifier: TextClassifier, texts: list[str]) -> Floats:
    """Of each text, texts x labels."""
    return np.array([list(classifier.scores(views(text)).values()) for text in texts])


def thresholds(everyday: Floats, looks_bad: Floats) -> dict[str, float]:
    """The lowest that keep both kinds of harmless prompts within their shares."""
    found = {}
    for place, label in enumerate(LABELS):
        lowest = max(
            float(np.quantile(everyday[:, place], 1 - FALSE_POSITIVES)),
            float(np.quantile(looks_bad[:, place], 1 - LOOKS_BAD_POSITIVES)),
        )
        found[label] = round(min(max(lowest + 0.005, LOWEST), 0.95), 4)
        if label not in ONE_IS_ENOUGH:
            found[label] = eased(found[label])
    return found


def eased(threshold: float) -> float:
    """A threshold lower by ``EASED``."""
    return round(1 / (1 + math.exp(EASED) * (1 - threshold) / threshold), 4)


def refused(classifier: TextClassifier, texts: list[str]) -> NDArray[np.bool_]:
    """Of each text, texts x labels: past the threshold, and not for one word alone."""
    rows = []
    for text in texts:
        seen = views(text)
        rows.append(
            [
                score >= classifier.thresholds[label]
                and not classifier.rests_on_one_word(seen, label)
                for label, score in classifier.scores(seen).items()
            ]
        )
    return np.array(rows)


def save(classifier: TextClassifier, path: Path) -> None:
    """As safetensors; n-grams are lines of UTF-8."""
    chars, words = classifier.grams
    tensors = classifier.tensors
    grams = "\n".join([*chars, *words]).encode()
    about = {"chars": len(chars), "thresholds": classifier.thresholds, "labels": list(LABELS)}
    save_file(
        {
            "grams": np.frombuffer(grams, np.uint8),
            "weights": tensors["weights"].astype(np.float16),
            "bias": tensors["bias"],
            "idf": tensors["idf"].astype(np.float16),
        },
        path,
        metadata={"classifier": json.dumps(about)},
    )


def measure(classifier: TextClassifier, held: Phrases, rng: random.Random) -> dict[str, Any]:
    """Recall of each label on phrases that weren't learned, and false positives."""
    recall = {}
    for place, label in enumerate(LABELS):
        texts = [asking(rng.choice(held.asked[label]), rng) for _ in range(400)]
        found = refused(classifier, texts)
        recall[label] = {
            "by its label": float(found[:, place].mean()),
            "by any": float(found.any(axis=1).mean()),
            "phrases": len(held.asked[label]),
        }
    everyday = refused(classifier, [harmless(rng) for _ in range(MEASURED)])
    return {"recall": recall, "everyday refused": int(everyday.any(axis=1).sum())}


def main() -> None:
    """Train, set the thresholds, measure, and write weights and card."""
    lists = Lists.shipped()
    learned, held = Phrases.split(SEED)
    rng = random.Random(SEED)
    classifier = fit(list(examples(learned, lists, EACH, rng)))
    everyday = scores(classifier, [harmless(rng) for _ in range(MEASURED)])
    looks_bad = scores(classifier, held.harmless)
    classifier = classifier.with_thresholds(thresholds(everyday, looks_bad))
    figures = measure(classifier, held, rng)
    save(classifier, SHIPPED)
    CARD.write_text(card(classifier, figures, len(held.harmless)), encoding="utf-8")
    print(json.dumps(figures, indent=2), SHIPPED.stat().st_size)


def card(classifier: TextClassifier, figures: dict[str, Any], looks_bad: int) -> str:
    """The model card: what it learned from, and how well it does."""
    rows = "\n".join(
        f"| {label} | {classifier.thresholds[label]:.3f} | {row['by its label']:.1%} "
        f"| {row['by any']:.1%} | {row['phrases']} |"
        for label, row in figures["recall"].items()
    )
    return f"""# The prompt classifier

Seven logistic regressions over n-grams of letters (2 to 5, within words) and of words (1 and 2),
{CHAR_FEATURES + WORD_FEATURES:,} features at most; {SHIPPED.stat().st_size / 1e6:.1f} MB of
safetensors, read with NumPy. Version {classifier.version}. Made by
`python -m training.safety_classifier`, which writes this page.

Learned from text made of frames, the word lists, and the phrases and grammars of
`training/safety_phrases.toml`: {EACH:,} prompts of each label, and {EACH * 11:,} harmless ones,
near half of which look bad. Nothing was fetched, and no person's prompt is in it. English for the
most part; in other languages it knows the lists' words and little else.

Thresholds are the lowest, from {LOWEST} up, at which a label refuses at most
{FALSE_POSITIVES:.1%} of {MEASURED:,} everyday prompts and {LOOKS_BAD_POSITIVES:.0%} of {looks_bad}
that look bad, none of them learned; then lowered by {EASED} as logits, since what rests on a single
word isn't refused (unless its score is far past the threshold). Both not for self-harm.

Measured on 400 prompts of each label, made of the fifth of the phrases that it hasn't learned (few
phrases, so a point or two means nothing):

| label | threshold | refused by its label | by any | phrases not learned |
|---|---|---|---|---|
{rows}

Everyday prompts refused: {figures["everyday refused"]} of {MEASURED:,}.

Author and examiner are the same: the phrases that measure were written by those who wrote the ones
that teach. Expect less from people who try. The figures of the whole prompt check are in
docs/safety.md.
"""


if __name__ == "__main__":
    main()
