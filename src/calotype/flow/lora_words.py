"""The words that switch LoRAs on, judged: when one is registered, and with each job with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from calotype.core.nouns import AdapterInfo, Verdict, VerdictKind
from calotype.core.references import plain
from calotype.flow.follow_up import refusal
from calotype.flow.safeguards import prompt_check
from calotype.safety.lists import ALWAYS
from calotype.safety.prompts import PromptCheck
from calotype.settings import Settings

log = structlog.get_logger("calotype.conduct")


def of(loras: Sequence[AdapterInfo]) -> list[str]:
    """All of their words."""
    return [word for lora in loras for word in lora.triggers]


def check(prompts: PromptCheck, loras: Sequence[AdapterInfo]) -> None:
    """Raise Refused naming the LoRA whose words ask for what a policy refuses."""
    for at, lora in enumerate(loras):
        said = f"The trigger words of the LoRA {plain(lora.name)} ask"
        verdict = prompts.judge_beside(lora.triggers, field=f"loras[{at}].name", said=said)
        if verdict.kind is not VerdictKind.ALLOW:
            log.warning("lora_refused", lora=lora.name, category=verdict.category)
            raise refusal(verdict)


def judge_together(
    prompts: PromptCheck, texts: Mapping[str, str], loras: Sequence[AdapterInfo]
) -> Verdict | None:
    """What a job's texts, harmless by themselves, ask for with its LoRAs' words; None: nothing."""
    words = of(loras)
    if not prompts.finds(words):
        return None
    verdict = prompts.judge_fields(texts, words)
    if verdict.kind is VerdictKind.ALLOW:
        return None
    asks = verdict.detail[:1].lower() + verdict.detail[1:]
    return replace(verdict, field="loras", detail=f"With its LoRAs' trigger words, {asks}")


def check_registrable(settings: Settings, lora: AdapterInfo) -> None:
    """Raise Refused for a LoRA whose name and words ask for what no policy lets pass.

    Raises OperatorError if the lists of words can't be read, SafetyUnavailable if the check fails.
    """
    words = [each for each in (lora.name, lora.title, *lora.triggers) if each]
    said = f"{lora.name} isn't registered, whatever the policy: its name and trigger words ask"
    verdict = prompt_check(settings).judge_beside(words, field="trigger", said=said)
    if verdict.category == ALWAYS:
        raise refusal(verdict)
