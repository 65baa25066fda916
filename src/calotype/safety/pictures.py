"""Judges pictures, finished or sent: whole, scored by every check they have to pass, not known.

It sees pixels and the scores the engine sent along, nothing else; it loads no model. A score that
is missing or no number is SafetyUnavailable, never "allow". What a score means for whom is the
policy's to say, but for one rule in code: a minor with anything sexual is blocked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calotype.core.nouns import Verdict, VerdictKind
from calotype.core.picture_checks import OUTSIDE, CheckUse
from calotype.safety import matchers, phash
from calotype.safety.errors import SafetyUnavailable, answered
from calotype.safety.hash_lists import KnownPictures
from calotype.safety.lists import ALWAYS
from calotype.safety.pdq import DISTANCE_MAX, PdqHash, pdq
from calotype.safety.policies import Policy
from calotype.safety.policies.policy import MINOR, SEXUAL
from calotype.safety.setup import HARMLESS, SafetySetup

RULES = 3  # version of the rules below
KNOWN, LISTED = "known", "listed"  # of a list of known abuse, and of one that isn't
FINITE = "finite"  # the score that says no number of the picture was lost: 1.0
ALWAYS_FROM = 0.3  # a minor and anything sexual, each from this score on; no setting reaches it
STRICT_SHARE = 0.5  # of every threshold, where a check is down in part, or was a moment ago
BUILD_CHARS = 12  # of a check's version, in a verdict's
STRICT = "-strict"  # at the end of a verdict's version that was made so

_ASKED = "What was asked for isn't allowed here."
_DETAILS = {
    OUTSIDE: "The picture isn't of what this model was made to draw; another prompt may help.",
    SEXUAL: "The picture looks sexual.",
    ALWAYS: "The picture may not be made.",
    "violence": "The picture looks violent.",
    "gore": "The picture looks gory.",
}


@dataclass(frozen=True)
class Scored:
    """What came with a picture from its engine."""

    scores: Mapping[str, float]  # by "check:label", and what the engine itself measured
    uses: tuple[CheckUse, ...]  # the checks that its model's pictures have to pass
    unchecked: Mapping[str, str] = field(default_factory=dict)  # checks that said nothing: why
    is_degraded: bool = False  # a check isn't as well as it should be: judged more strictly


@dataclass(frozen=True)
class _Finding:
    category: str
    check: str
    score: float
    limit: float


class PictureCheck:
    """Judges a picture before anything of it is stored for delivery."""

    def __init__(
        self, known: KnownPictures | None = None, setup: SafetySetup | None = None
    ) -> None:
        """``known``: the lists of blocked pictures; ``setup``: policies, and what scores mean.

        Raises OperatorError for a plug-in that isn't there.
        """
        self._known = known or KnownPictures()
        self._setup = setup or SafetySetup.default_setup()
        self._mapping = self._setup.mapping()
        self._matchers = matchers.load(self._setup.matchers)
        named = [
            f"{it.use.name} {it.use.distance_max} {it.matcher.version}" for it in self._matchers
        ]
        self._lists = self._known.version + (f"-{_short('; '.join(named))}" if named else "")
        self.version = f"{RULES}-{self._setup.version}-{self._lists}"

    @classmethod
    def from_files(cls, lists: Sequence[Path], setup: SafetySetup | None = None) -> PictureCheck:
        """With an operator's lists; raises OperatorError if one can't be read."""
        return cls(KnownPictures.from_files(lists), setup)

    def judge(
        self, pixels: NDArray[np.uint8], scored: Scored, policy: Policy | None = None
    ) -> Verdict:
        """Judge height x width x 3 RGB bytes and their scores by a policy (the default).

        BLOCK with category "damaged", "unjudgeable", "known", "listed", "sexual_minors" or one of
        the policy's; REVIEW where the policy wants a person to look at such a score; else ALLOW,
        which names the score that came nearest to its threshold. Raises
        SafetyUnavailable, naming the check, if it can't be judged at all: no "finite" score, no
        check that looks at it, a score that is missing or no number, no such picture.

        Where a check is degraded every threshold is lowered by STRICT_SHARE: what is allowed then
        is always allowed otherwise, too.
        """
        policy = policy or self._setup.policies[self._setup.default]
        verdict = answered("pictures", lambda: self._judge(pixels, scored, policy))
        return replace(verdict, version=self.version_of(verdict.check, scored))

    def version_of(self, check: str, scored: Scored) -> str:
        """What a verdict was made by: rules, checks and lists; the version of the check that it
        names, if it has one; and whether that was done more strictly."""
        builds = {use.name: use.build[:BUILD_CHARS] for use in scored.uses}
        parts = (str(RULES), self._setup.version_with(scored.uses), self._lists)
        named = (builds[check],) if check in builds else ()
        return "-".join((*parts, *named)) + STRICT * scored.is_degraded

    def refused_from(
        self, uses: Sequence[CheckUse], policy: Policy | None = None
    ) -> dict[str, float]:
        """Of these checks' scores, from which on no step of a picture is made by a policy."""
        return self._setup.refused_from(uses, policy)

    def judge_read(self, scored: Scored, policy: Policy | None = None) -> Verdict:
        """Judge what was read of a prompt before the first step: BLOCK, or ALLOW.

        What it allows is a beginning: the picture is judged with these scores again. Raises
        SafetyUnavailable as ``judge`` does.
        """
        policy = policy or self._setup.policies[self._setup.default]
        first = tuple(use for use in scored.uses if use.reads)

        def judged() -> Verdict:
            found = self._findings(replace(scored, uses=first), policy)
            if worst := _worst(found):
                told = worst.check, worst.category, worst.score, _ASKED
                version = self.version_of(worst.check, scored)
                return replace(self._block(policy, *told), field="prompt", version=version)
            return Verdict(VerdictKind.ALLOW, "prompt", self.version, policy=policy.version)

        return answered("prompt", judged)

    def judge_input(self, pixels: NDArray[np.uint8]) -> Verdict:
        """Judge a picture that a person sent, height x width x 3, before anything begins from it.

        BLOCK with category "unjudgeable", "known" or "listed"; else ALLOW. Raises SafetyUnavailable
        if it is no such picture. What is made of it is judged again, by every check.
        """
        policy = self._setup.policies[self._setup.default]

        def compared() -> Verdict:
            _check_shape(pixels)
            blocked = self._compared(pixels, policy, "The picture is flat, so it can't be checked.")
            return blocked or Verdict(
                VerdictKind.ALLOW, "known", self.version, policy=policy.version
            )

        return answered("pictures", compared)

    def _judge(self, pixels: NDArray[np.uint8], scored: Scored, policy: Policy) -> Verdict:
        if FINITE not in scored.scores:
            raise SafetyUnavailable(f"the engine sent no score {FINITE!r}", field=FINITE)
        _check_shape(pixels)
        if scored.scores[FINITE] != 1.0:  # also when it is NaN
            return self._block(policy, "integrity", "damaged", 1.0, "The picture came out damaged.")
        if all(use.reads for use in scored.uses):
            raise SafetyUnavailable("no check looks at this model's pictures", field="pictures")
        findings = self._findings(scored, policy)
        if found := _worst(findings):
            reading = [use.name for use in scored.uses if use.reads]
            detail = _DETAILS.get(found.category, "The picture isn't allowed here.")
            if found.check in reading and found.category != ALWAYS:
                detail = _ASKED
            return self._block(policy, found.check, found.category, found.score, detail)
        if blocked := self._compared(
            pixels, policy, "The picture came out flat, so it can't be checked; try another seed."
        ):
            return blocked
        if unsure := _unsure(findings, policy):
            detail = "A person has to look at the picture first."
            return Verdict(
                VerdictKind.REVIEW,
                unsure.check,
                self.version,
                unsure.category,
                unsure.score,
                detail,
                policy=policy.version,
            )
        nearest = max(findings, key=lambda each: each.score / each.limit)
        return Verdict(
            VerdictKind.ALLOW,
            nearest.check,
            self.version,
            score=nearest.score,
            policy=policy.version,
        )

    def _findings(self, scored: Scored, policy: Policy) -> list[_Finding]:
        """Every score with the threshold of what it means, and the rule that no policy reaches."""
        found: list[_Finding] = []
        share = STRICT_SHARE if scored.is_degraded else 1.0
        worst = {MINOR: (0.0, ""), SEXUAL: (0.0, "")}
        for use in scored.uses:
            meanings = self._mapping.get(use.name)
            if meanings is None or set(meanings) != set(use.labels):
                raise SafetyUnavailable(f"nobody knows what {use.name} means", field=use.name)
            for label in use.labels:
                score, category = _score(scored, use, label), meanings[label]
                if category == HARMLESS:
                    continue
                limit = policy.limit(category, reads=use.reads)
                if limit is None:
                    raise SafetyUnavailable(
                        f"policy {policy.name} has no threshold for {category}", field=use.name
                    )
                if category in worst:
                    worst[category] = max(worst[category], (score, use.name))
                if category != MINOR:  # harmless by itself
                    found.append(_Finding(category, use.name, score, share * limit))
        together = min(worst.values())
        if together[0] >= share * ALWAYS_FROM:
            found.append(_Finding(ALWAYS, together[1], together[0], share * ALWAYS_FROM))
        if not found:
            raise SafetyUnavailable("no check says anything of this picture", field="pictures")
        return found

    def _compared(self, pixels: NDArray[np.uint8], policy: Policy, if_flat: str) -> Verdict | None:
        """Whether it is one of the known; a picture with nothing to compare is blocked as that."""
        hashed = self._hashed(pixels)
        if hashed is None:
            return self._block(policy, "integrity", "unjudgeable", 1.0, if_flat)
        found: list[tuple[bool, str, float]] = []  # severe, by which list or plug-in, how near
        if match := self._known.nearest(hashed.positions):
            score = 1.0 - match.distance / (2 * DISTANCE_MAX)
            found.append((match.is_severe, match.source, score))
        unjudged = ""
        for each in self._matchers:
            if any(is_severe for is_severe, _, _ in found):
                break  # nothing worse can be found
            nearness = each.nearness(pixels)
            if nearness is None:
                unjudged = unjudged or each.use.name
            elif nearness:
                found.append((each.use.is_severe, each.use.name, nearness))
        if found:
            is_severe, source, score = max(found, key=lambda one: one[0])
            category, detail = KNOWN if is_severe else LISTED, "The picture is one that is blocked."
            return self._block(policy, f"known:{source}", category, score, detail)
        if unjudged:
            return self._block(policy, unjudged, "unjudgeable", 1.0, if_flat)
        return None

    def _hashed(self, pixels: NDArray[np.uint8]) -> PdqHash | None:
        """Its hash; None of a picture that has none: "no match" would answer without a question."""
        if phash.contrast(phash.small(pixels)) < phash.CONTRAST_MIN:
            return None
        hashed = pdq(pixels)
        return None if len(self._known) and hashed.quality == 0 else hashed

    def _block(
        self, policy: Policy, check: str, category: str, score: float, detail: str
    ) -> Verdict:
        return Verdict(
            VerdictKind.BLOCK,
            check,
            self.version,
            category,
            score,
            detail,
            policy=policy.version,
        )


def _score(scored: Scored, use: CheckUse, label: str) -> float:
    name = use.score_name(label)
    if name not in scored.scores or use.name in scored.unchecked:
        why = scored.unchecked.get(use.name, "the engine sent no score of it")
        raise SafetyUnavailable(f"the picture check {use.name} said nothing: {why}", field=use.name)
    score = scored.scores[name]
    if not (math.isfinite(score) and 0.0 <= score <= 1.0):
        raise SafetyUnavailable(f"the picture check {use.name} said {score}", field=use.name)
    return score


def _worst(findings: Sequence[_Finding]) -> _Finding | None:
    """What is furthest past its threshold, the rule without one first."""
    past = [each for each in findings if each.score >= each.limit]
    return max(
        past, key=lambda each: (each.category == ALWAYS, each.score / each.limit), default=None
    )


def _unsure(findings: Sequence[_Finding], policy: Policy) -> _Finding | None:
    """What a person has to look at, the furthest past where that begins."""
    past = [
        (each.score / policy.review[each.category], each)
        for each in findings
        if each.category in policy.review and each.score >= policy.review[each.category]
    ]
    return max(past, key=lambda pair: pair[0], default=(0.0, None))[1]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _check_shape(pixels: NDArray[np.uint8]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise SafetyUnavailable(f"not an RGB picture: {pixels.dtype} {pixels.shape}")
