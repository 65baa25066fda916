"""LlavaGuard (arXiv:2406.05113) as a check: a policy in words, and how likely it says "Unsafe".

It was trained to answer in JSON that begins with the rating. Its whole answer takes seconds; here
the beginning is written for it, and the next token's chances are read: one pass a picture. The
policy is the file ``policy.txt`` in the model's folder (the model's card has the published one).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from calotype.core import limits
from calotype.core.picture_checks import UNSAFE, CheckUse
from calotype.engine.checks.base import CheckBroken, Picture, Scores
from calotype.engine.checks.classifier import LOCAL, as_stored, read_network

POLICY = "policy.txt"
BEGINNING = '{\n    "rating": "'  # of its answer
WORDS = ("Unsafe", "Safe")


class LlavaGuardCheck:
    """The loaded model."""

    def __init__(self, network: Any, processor: Any, policy: str, device: torch.device) -> None:
        self._network, self._processor = network.eval().to(device), processor
        self._device = device
        content = [{"type": "image"}, {"type": "text", "text": policy}]
        asked = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        self._prompt = asked + BEGINNING
        tokenizer = processor.tokenizer
        firsts = [tokenizer(word, add_special_tokens=False).input_ids[:1] for word in WORDS]
        if not all(firsts) or firsts[0] == firsts[1]:
            raise CheckBroken(f"its tokens don't tell {' from '.join(WORDS)}")
        self._firsts = [first[0] for first in firsts]

    @classmethod
    def load(cls, use: CheckUse, device: torch.device) -> LlavaGuardCheck:
        """Read the model, its processor and its policy; raises CheckBroken."""
        from transformers import AutoModelForImageTextToText

        folder = Path(use.path)
        policy = _policy(folder / POLICY)
        network = as_stored(read_network(AutoModelForImageTextToText, use), use)
        return cls(network, _processor(folder), policy, device)

    def scores(self, pictures: Sequence[Picture]) -> Sequence[Scores]:
        """The chance of "Unsafe" beside "Safe"; the chances of other words don't count."""
        found = []
        for picture in pictures:  # prompts of pictures of different sizes differ in length
            given = self._processor(
                images=Image.fromarray(picture), text=self._prompt, return_tensors="pt"
            ).to(self._device)
            logits = self._network(**given, logits_to_keep=1).logits[0, -1].float().cpu()
            found.append({UNSAFE: float(logits[self._firsts].softmax(dim=0)[0])})
        return found


def _processor(folder: Path) -> Any:
    """LLaVA-OneVision's processor without its part for videos, which would need torchvision."""
    from transformers import AutoImageProcessor, AutoTokenizer, ProcessorMixin
    from transformers.models.llava_onevision.processing_llava_onevision import (
        LlavaOnevisionProcessor,
    )

    class OfPictures(LlavaOnevisionProcessor):  # type: ignore[misc]  # not followed
        def __init__(self, image_processor: Any, tokenizer: Any, said: dict[str, Any]) -> None:
            self.num_image_tokens = said["num_image_tokens"]
            self.vision_feature_select_strategy = said["vision_feature_select_strategy"]
            self.image_token, self.video_token = "<image>", "<video>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            self.vision_aspect_ratio = said.get("vision_aspect_ratio", "anyres_max_9")
            template = tokenizer.chat_template or said.get("chat_template")
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=template)

    images = AutoImageProcessor.from_pretrained(folder, backend="pil", **LOCAL)
    tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
    try:
        said = json.loads((folder / "processor_config.json").read_bytes())
        return OfPictures(images, tokenizer, said)
    except (OSError, ValueError, KeyError) as error:
        raise CheckBroken(f"{folder}/processor_config.json: {error!r}") from error


def _policy(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckBroken(f"{path} can't be read: {error}", field=POLICY) from error
    if not text or len(text) > limits.CHECK_POLICY_CHARS_MAX:
        raise CheckBroken(
            f"{path} is empty or too long", field=POLICY, limit=limits.CHECK_POLICY_CHARS_MAX
        )
    return text
