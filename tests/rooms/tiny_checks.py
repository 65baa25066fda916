"""Tiny random models of the classes that picture checks are loaded with, in their folders.

The files that say how pictures are read are written as the published ones are, and not by
transformers, so that loading is tested on what people have.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    Gemma3TextConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    ShieldGemma2Config,
    ShieldGemma2ForImageClassification,
    SiglipVisionConfig,
    ViTConfig,
    ViTForImageClassification,
)

from calotype.core.picture_checks import HEAD_FILE, LABELS, CheckKind, CheckUse
from calotype.engine.checks.domain import WEIGHTS, DomainNet
from calotype.engine.checks.encoders import DomainEncoder, pack
from calotype.engine.checks.recogniser import ARCHITECTURE

SIDE = 28  # pixels, of what these networks look at
TINY: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
SEEN: dict[str, Any] = {**TINY, "image_size": SIDE, "patch_size": 7}  # 16 patches
POLICIES = ("dangerous", "sexual", "violence")
HARMLESS_LABELS = ("normal", "nsfw")
TEXT_ROOM = 16  # tokens, of what the text classifier reads at once


def use(folder: Path, kind: CheckKind, labels: tuple[str, ...] = ()) -> CheckUse:
    return CheckUse(kind.value, kind.value, str(folder), "0", labels or LABELS[kind])


def domain(folder: Path) -> CheckUse:
    """Ours, untrained."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    save_file(dict(DomainNet().state_dict()), folder / WEIGHTS)
    return use(folder, CheckKind.DOMAIN)


def classifier(folder: Path, labels: tuple[str, ...] = HARMLESS_LABELS) -> CheckUse:
    """Falconsai's class: a ViT with a label each."""
    torch.manual_seed(1)
    ViTForImageClassification(
        ViTConfig(**SEEN, id2label=dict(enumerate(labels)), label2id={})
    ).save_pretrained(folder)
    sizes = {"do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 2}
    processor(folder, "ViTImageProcessor", size={"height": SIDE, "width": SIDE}, **sizes)
    return use(folder, CheckKind.CLASSIFIER, labels)


def concepts(folder: Path) -> CheckUse:
    """CompVis's class."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    torch.manual_seed(1)
    config = CLIPConfig(vision_config=CLIPVisionConfig(**SEEN).to_dict(), projection_dim=8)
    checker = StableDiffusionSafetyChecker(config)
    for embeds in (checker.concept_embeds, checker.special_care_embeds):
        embeds.data = torch.randn(embeds.shape)
    checker.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "feature_extractor_type": "CLIPFeatureExtractor",
                "crop_size": SIDE,
                "size": SIDE,
                "do_center_crop": True,
                "do_normalize": True,
                "do_resize": True,
                "resample": 3,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
            }
        )
    )
    return use(folder, CheckKind.CONCEPTS)


def shieldgemma2(folder: Path) -> CheckUse:
    """ShieldGemma 2's class: Gemma 3 with two words to answer with."""
    torch.manual_seed(1)
    special = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    words = tokenizer(folder, special)
    token = words.convert_tokens_to_ids
    text = Gemma3TextConfig(
        **TINY, vocab_size=len(words), num_key_value_heads=1, head_dim=8, sliding_window=64
    )
    config = ShieldGemma2Config(
        text_config=text.to_dict(),
        vision_config=SiglipVisionConfig(**SEEN, vision_use_head=False).to_dict(),
        mm_tokens_per_image=4,
        boi_token_index=token(special["boi_token"]),
        eoi_token_index=token(special["eoi_token"]),
        image_token_index=token(special["image_token"]),
    )
    config.yes_token_index, config.no_token_index = token("Yes"), token("No")
    model = ShieldGemma2ForImageClassification(config)
    # New ones begin at zero: then a picture says nothing.
    model.model.model.multi_modal_projector.mm_input_projection_weight.data.normal_()
    model.save_pretrained(folder)
    processor(folder, "Gemma3ImageProcessor", size={"height": SIDE, "width": SIDE})
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %} answer"
    )
    said = {"processor_class": "ShieldGemma2Processor", "image_seq_length": 4}
    (folder / "processor_config.json").write_text(json.dumps(said))
    (folder / "chat_template.jinja").write_text(template)
    return use(folder, CheckKind.SHIELDGEMMA2, POLICIES)


def llavaguard(folder: Path) -> CheckUse:
    """LlavaGuard's class: LLaVA-OneVision, asked by a policy."""
    torch.manual_seed(1)
    special = {"image_token": "<image>", "video_token": "<video>"}
    words = tokenizer(folder, special)
    token = words.convert_tokens_to_ids
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**TINY, vocab_size=len(words), num_key_value_heads=1).to_dict(),
        vision_config=SiglipVisionConfig(**SEEN, vision_use_head=False).to_dict(),
        image_token_index=token(special["image_token"]),
        video_token_index=token(special["video_token"]),
        image_grid_pinpoints=[[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE]],
    )
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    processor(
        folder,
        "LlavaOnevisionImageProcessor",
        size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %} assistant "
    )
    said = {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": 16,
        "vision_feature_select_strategy": "full",
    }
    (folder / "processor_config.json").write_text(json.dumps(said))
    (folder / "chat_template.jinja").write_text(template)
    (folder / "policy.txt").write_text("Rate the image as Safe or Unsafe .")
    return use(folder, CheckKind.LLAVAGUARD)


def text(folder: Path, labels: tuple[str, ...] = ("fine", "harm")) -> CheckUse:
    """The class of Prompt Guard and many text classifiers of harm: a DeBERTa with a label each."""
    torch.manual_seed(1)
    words = tokenizer(folder, {"cls_token": "<cls>", "sep_token": "<sep>"}, TEXT_ROOM)
    around = [(word, words.convert_tokens_to_ids(word)) for word in ("<cls>", "<sep>")]
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<cls> $A <sep>", special_tokens=around
    )
    words.save_pretrained(folder)
    config = DebertaV2Config(
        **TINY,
        vocab_size=len(words),
        max_position_embeddings=TEXT_ROOM + 2,
        type_vocab_size=0,
        id2label=dict(enumerate(labels)),
        label2id={},
        initializer_range=1.0,  # or every text would say the same
    )
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    return use(folder, CheckKind.TEXT, labels)


def probe(folder: Path, labels: tuple[str, ...] = HARMLESS_LABELS) -> CheckUse:
    """Ours over a frozen encoder: the domain check's convolutions, untrained."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    encoder = DomainEncoder(DomainNet())
    pack(encoder, folder)
    width = encoder.said["width"]
    head = {"head.weight": torch.randn(len(labels), width), "head.bias": torch.zeros(len(labels))}
    save_file(head, folder / HEAD_FILE)
    names = {str(at): label for at, label in enumerate(labels)}
    config = {"id2label": names, "thresholds": {labels[1]: 0.7}, "encoder": encoder.said}
    (folder / "config.json").write_text(json.dumps(config))
    return use(folder, CheckKind.PROBE, labels)


def recogniser(
    folder: Path,
    labels: tuple[str, ...] = ("fine", "harm"),
    width: int = 32,
    encoders: tuple[str, ...] = (),
) -> CheckUse:
    """Ours over a text encoder's embeddings of this width, untrained."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    head = {"head.weight": torch.randn(len(labels), width), "head.bias": torch.zeros(len(labels))}
    save_file(head, folder / HEAD_FILE)
    names = {str(at): label for at, label in enumerate(labels)}
    thresholds = dict.fromkeys(labels, 0.6)
    config = {
        "architectures": [ARCHITECTURE],
        "id2label": names,
        "thresholds": thresholds,
        "text_encoders": encoders,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return use(folder, CheckKind.RECOGNISER, labels)


def tokenizer(folder: Path, special: dict[str, str], room: int = 4096) -> PreTrainedTokenizerFast:
    """Words by spaces, and the bytes of all others."""
    named = ["<pad>", "<unk>", "<bos>", *special.values(), "Yes", "No", "Safe", "Unsafe"]
    common = ["Rate", "the", "image", "as", "or", ".", "answer", "assistant", "{", '"', ":"]
    vocabulary = {word: at for at, word in enumerate([*named, *common])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        extra_special_tokens=special,
        model_max_length=room,
    )
    words.save_pretrained(folder)
    return words


def processor(folder: Path, kind: str, **said: Any) -> None:
    body = {
        "image_processor_type": kind,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "rescale_factor": 1 / 255,
        **said,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(body))


MAKE: dict[CheckKind, Callable[[Path], CheckUse]] = {
    CheckKind.DOMAIN: domain,
    CheckKind.CLASSIFIER: classifier,
    CheckKind.CONCEPTS: concepts,
    CheckKind.SHIELDGEMMA2: shieldgemma2,
    CheckKind.LLAVAGUARD: llavaguard,
    CheckKind.PROBE: probe,
    CheckKind.TEXT: text,
}
