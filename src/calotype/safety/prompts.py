"""Judges the texts of a job: lists of words, names and ages, then a classifier.

A first line of defence: it stops asking, not ingenuity; what it misses, as measured, is in
docs/safety.md, and the picture's own check comes after it. It knows nothing of who asks. No clock:
the same texts, lists and weights give the same verdict.

Fails closed: whatever goes wrong in a check is SafetyUnavailable, never "allow".
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.core.nouns import Verdict, VerdictKind
from calotype.safety.classifier import LABELS, TextClassifier
from calotype.safety.errors import SafetyUnavailable, answered
from calotype.safety.lists import ALWAYS, CATEGORIES, LISTED, Collisions, Lists
from calotype.safety.match import Hit, phrase_matcher
from calotype.safety.policies import Policy
from calotype.safety.views import Views, spaced, views

RULES = 5  # version of the rules below, and of the views
BLOCKLIST, ENTITIES, CLASSIFIER = "blocklist", "entities", "classifier"
NEGATIVE = "negative_prompt"
FOLDED_CHARS_MAX = 8_000  # of one field, as the views have it
_WORDS_KEPT = 4_096  # that came with something, of which is remembered what they hold
_SEAM_WORDS = 6  # of each side, where a phrase may lie across the end of one field

_DETAILS = {
    ALWAYS: "sexual content involving minors",
    "sexual": "sexual content",
    "self_harm": "self-harm or suicide",
    "gore": "gore or mutilation",
    "violence": "graphic violence",
    "hate": "hateful content",
    "illegal": "help with a crime",
    "harassment": "the harassment of a real person",
}


@dataclass(frozen=True)
class Finding:
    """One reason to refuse."""

    category: str
    check: str
    field: str
    score: float  # 0..1
    hits: tuple[Hit, ...] = ()  # what was found, for the operator; the person isn't told


class PromptCheck:
    """Judges texts against the shipped lists and classifier, and an operator's additions."""

    def __init__(self, lists: Lists, classifier: TextClassifier) -> None:
        self.lists, self.classifier = lists, classifier
        self._off = lists.off - {ALWAYS}
        self.policy = ""  # its version, where it is by one
        collisions = Collisions.shipped()
        self._matcher = phrase_matcher(lists, collisions)
        self._in_word = functools.lru_cache(_WORDS_KEPT)(self._hits_of)
        text = f"{RULES} {lists.version} {collisions.version} {classifier.version}"
        self.version = hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def default(cls) -> PromptCheck:
        """With the lists and the classifier that ship with the package."""
        return cls(Lists.shipped(), TextClassifier.shipped())

    @classmethod
    def from_file(cls, path: Path) -> PromptCheck:
        """With the shipped lists and an operator's file (TOML, see terms/en.toml) on top.

        Raises OperatorError naming the file if it can't be read or holds something unknown.
        """
        return cls(Lists.shipped().extended(path), TextClassifier.shipped())

    def under(self, policy: Policy) -> PromptCheck:
        """The same check by a policy: without what it leaves out, with thresholds of its own."""
        found = copy.copy(self)
        found._off = (self._off | set(policy.prompts_off)) - {ALWAYS}
        if policy.prompt_thresholds:
            thresholds = self.classifier.thresholds | dict(policy.prompt_thresholds)
            found.classifier = self.classifier.with_thresholds(thresholds)
        found.policy = policy.version
        return found

    def judge(self, prompt: str, *, field: str = "prompt") -> Verdict:
        """BLOCK with a category, or ALLOW, for one field by itself; see ``judge_fields``."""
        return self.judge_fields({field: prompt})

    def judge_fields(self, fields: Mapping[str, str], beside: Iterable[str] = ()) -> Verdict:
        """BLOCK with a category, or ALLOW, for all that one job says, by field, in its order.

        In the field "negative_prompt" the words of the lists are welcome (they steer away from
        what they name), but taking clothes away isn't. All other fields are read together, and a
        word or phrase that lies across the end of one is found. Sexual content involving minors
        is refused in any field and can't be turned off. ``beside`` are words that nobody typed and
        that are meant all the same, as a LoRA's: see ``judge_beside``.

        Raises SafetyUnavailable if any check fails: nothing is allowed for want of an answer.
        """
        found = self.findings(fields, beside)
        return self._verdict(found, lambda field: f"The {field.replace('_', ' ')} asks")

    def finds(self, words: Iterable[str]) -> bool:
        """Whether any list has something of these; raises SafetyUnavailable."""
        return answered("prompt", lambda: bool(self._beside(words)))

    def judge_beside(self, words: Iterable[str], *, field: str, said: str) -> Verdict:
        """The same for words that come with something, each by itself and all together.

        By the lists alone: tags aren't the sentences that the classifier learnt. ``said`` is whose
        words they are, for people, with the verb: "The trigger words of the LoRA ink ask".

        Raises SafetyUnavailable.
        """
        found = answered("prompt", lambda: self._found_beside(self._beside(words), field))
        return self._verdict(found, lambda _: said)

    def _verdict(self, found: Sequence[Finding], said: Callable[[str], str]) -> Verdict:
        if not found:
            return Verdict(VerdictKind.ALLOW, "prompt", self.version, policy=self.policy)
        first = found[0]
        detail = f"{said(first.field)} for {_DETAILS[first.category]}."
        return Verdict(
            VerdictKind.BLOCK,
            first.check,
            self.version,
            first.category,
            first.score,
            detail,
            first.field,
            self.policy,
        )

    def findings(self, fields: Mapping[str, str], beside: Iterable[str] = ()) -> list[Finding]:
        """Every reason to refuse, the one that is told first; raises as ``judge_fields`` does."""
        return answered("prompt", lambda: self._findings(fields, beside))

    def names_minor(self, fields: Mapping[str, str], beside: Iterable[str] = ()) -> bool:
        """Whether what is asked for has a minor in it, harmless though it be.

        Raises SafetyUnavailable if that can't be told.
        """
        return answered(
            "prompt",
            lambda: any(
                hit.name in ("minors", ALWAYS)
                for hit in self._beside(beside).union(
                    *(self._hits_of(text) for field, text in fields.items() if field != NEGATIVE)
                )
            ),
        )

    def explain(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """The path to the verdict, for the operator: verdict, category, checks."""
        verdict, found = self.judge_fields(fields), self.findings(fields)
        checks = [
            {
                "check": each.check,
                "category": each.category,
                "field": each.field,
                "score": round(each.score, 4),
                "found": [
                    {"list": hit.name, "term": hit.term, "view": hit.view}
                    for hit in sorted(each.hits)
                ],
            }
            for each in found
        ]
        return {
            "verdict": verdict.kind.value,
            "category": verdict.category,
            "version": self.version,
            "policy": self.policy or None,
            "checks": checks,
            "scores": {
                field: self.classifier.scores(views(text))
                for field, text in fields.items()
                if field != NEGATIVE
            },
        }

    def _beside(self, words: Iterable[str]) -> set[Hit]:
        """What is found in words that are each by themselves."""
        return set[Hit]().union(*map(self._in_word, words))

    def _hits_of(self, text: str) -> frozenset[Hit]:
        return frozenset(self._matcher.hits(_seen("words", text)))

    def _found_beside(self, hits: set[Hit], field: str) -> list[Finding]:
        found = [*self._minors(hits, set(), field), *self._listed(hits, field)]
        return self._in_force([*found, *_harassing(hits, field)])

    def _findings(self, fields: Mapping[str, str], beside: Iterable[str]) -> list[Finding]:
        seen = {field: _seen(field, text) for field, text in fields.items()}
        hits = {field: self._matcher.hits(view) for field, view in seen.items()}
        asked = [field for field in fields if field != NEGATIVE]
        wanted = self._beside(beside).union(*(hits[field] for field in asked))
        across = self._across(seen)
        unwanted = hits.get(NEGATIVE, set())
        first = asked[0] if asked else NEGATIVE
        found = self._minors(wanted | across, unwanted, first)
        if any(hit.name == "undressing" for hit in unwanted):
            found.append(_finding("sexual", BLOCKLIST, NEGATIVE, unwanted, "undressing"))
        for field in asked:
            found += self._listed(hits[field], field)
            found += self._scored(seen[field], field, hits[field] | wanted)
        found += self._listed(across, first)
        return self._in_force([*found, *_harassing(wanted | across, first)])

    def _in_force(self, found: Iterable[Finding]) -> list[Finding]:
        """Those that the policy doesn't leave out, in the order in which they are told."""
        kept = [each for each in found if each.category not in self._off]
        return sorted(kept, key=lambda each: CATEGORIES.index(each.category))

    def _minors(self, wanted: set[Hit], unwanted: set[Hit], first: str) -> list[Finding]:
        """Words that are harmless alone, of a minor and of sex, aren't together."""
        found = []
        sexual = {"sexual", "suggestive"}
        for field, hits in ((first, wanted), (NEGATIVE, unwanted)):
            if any(hit.name == ALWAYS for hit in hits):
                found.append(_finding(ALWAYS, BLOCKLIST, field, hits, ALWAYS))
            if both := _together(hits, {"minors"}, sexual):
                found.append(Finding(ALWAYS, ENTITIES, field, 1.0, both))
        undressing = _only(unwanted, "undressing")
        if both := _together(_only(wanted, "minors") | undressing, {"minors"}, {"undressing"}):
            found.append(Finding(ALWAYS, ENTITIES, NEGATIVE, 1.0, both))
        return found

    def _listed(self, hits: set[Hit], field: str) -> list[Finding]:
        names = {hit.name for hit in hits} & set(LISTED)
        return [_finding(name, BLOCKLIST, field, hits, name) for name in names - {ALWAYS}]

    def _scored(self, seen: Views, field: str, hits: set[Hit]) -> list[Finding]:
        found = []
        scores = self.classifier.scores(seen)
        if set(scores) != set(LABELS) or not all(0 <= score <= 1 for score in scores.values()):
            raise SafetyUnavailable(f"the prompt classifier gave half an answer: {scores}")
        for label, score in scores.items():
            if score < self.classifier.thresholds[label]:
                continue
            if label == "sexual" and any(hit.name == "minors" for hit in hits):
                found.append(Finding(ALWAYS, CLASSIFIER, field, score))
            elif self.classifier.rests_on_one_word(seen, label):
                continue
            found.append(Finding(label, CLASSIFIER, field, score))
        return found

    def _across(self, seen: Mapping[str, Views]) -> set[Hit]:
        """What lies across the end of one field and the beginning of another."""
        found: set[Hit] = set()
        words = {field: view.words["plain"].split() for field, view in seen.items()}
        for one in words:
            for other in words:
                before, after = words[one][-_SEAM_WORDS:], words[other][:_SEAM_WORDS]
                if one == other or not before or not after:
                    continue
                alone = self._terms(before) | self._terms(after)
                glued = [*before[:-1], before[-1] + after[0], *after[1:]]
                for both in ([*before, *after], glued):
                    hits = self._matcher.hits(views(spaced(both)))
                    found |= {hit for hit in hits if (hit.name, hit.term) not in alone}
        return {hit for hit in found if hit.name in LISTED}

    def _terms(self, words: list[str]) -> set[tuple[str, str]]:
        return {(hit.name, hit.term) for hit in self._matcher.hits(views(spaced(words)))}


def _seen(field: str, text: str) -> Views:
    seen = views(text)
    if len(seen.words["plain"]) > FOLDED_CHARS_MAX:  # one character can stand for eighteen
        raise InvalidInput(
            f"{field} is too long with its characters written out",
            field=field,
            limit=FOLDED_CHARS_MAX,
        )
    return seen


def _harassing(hits: set[Hit], field: str) -> list[Finding]:
    """A name beside what harms or degrades whoever has it."""
    degrading = {*LISTED, "suggestive", "degrading"}
    both = _together(hits, {"figures"}, degrading)
    return [Finding("harassment", ENTITIES, field, 1.0, both)] if both else []


def _only(hits: set[Hit], name: str) -> set[Hit]:
    return {hit for hit in hits if hit.name == name}


def _together(hits: set[Hit], ones: set[str], others: set[str]) -> tuple[Hit, ...]:
    """The hits of both kinds of list; none unless there are some of each."""
    first = {hit for hit in hits if hit.name in ones}
    second = {hit for hit in hits if hit.name in others}
    return tuple(sorted(first | second)) if first and second else ()


def _finding(category: str, check: str, field: str, hits: set[Hit], name: str) -> Finding:
    return Finding(category, check, field, 1.0, tuple(sorted(_only(hits, name))))
