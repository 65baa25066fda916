"""Disguised words are found, harmless ones aren't, and what can't be judged isn't let through.

No picture here is of anything but noise and gradients: the bank's tests use benign canaries.
"""

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from calotype.core.errors import OperatorError
from calotype.core.nouns import VerdictKind
from calotype.safety import phash
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.pictures import KnownPictures, PictureCheck
from calotype.safety.prompts import PromptCheck

Picture = NDArray[np.uint8]

CHECK = PromptCheck.default()


def category(prompt: str, field: str = "prompt") -> str | None:
    verdict = CHECK.judge(prompt, field=field)
    assert (verdict.kind is VerdictKind.ALLOW) == (verdict.category is None)
    return verdict.category


# Disguises, each tried on a word of each kind


def between(word: str, what: str) -> str:
    return what.join(word)


def shifted(word: str, start: int) -> str:
    return "".join(chr(start + ord(letter) - ord("a")) for letter in word)


def with_digits(word: str) -> str:
    return word.translate(str.maketrans("aeiost", "431057"))


DISGUISES: dict[str, Callable[[str], str]] = {
    "plain": lambda word: word,
    "upper": str.upper,
    "title": str.title,
    "fullwidth": lambda word: shifted(word, ord("ａ")),
    "fullwidth capitals": lambda word: shifted(word, ord("Ａ")),
    "Cyrillic": lambda word: word.translate(str.maketrans("aceopxyi", "асеорхуі")),
    "Cyrillic capitals": lambda word: word.upper().translate(str.maketrans("ACEOPXTH", "АСЕОРХТН")),
    "Greek": lambda word: word.translate(str.maketrans("aeiotuvnp", "αειοτυνηρ")),
    "Armenian": lambda word: word.translate(str.maketrans("nouh", "ոօսհ")),
    "zero-width space": lambda word: between(word, "\u200b"),
    "zero-width joiner": lambda word: between(word, "\u200d"),
    "word joiner": lambda word: between(word, "\u2060"),
    "byte order mark": lambda word: between(word, "\ufeff"),
    "soft hyphen": lambda word: between(word, "\u00ad"),
    "Hangul filler": lambda word: between(word, "\u3164"),
    "variation selector": lambda word: between(word, "\ufe0f"),
    "combining": lambda word: between(word, "\u0336") + "\u0336",
    "accents": lambda word: word.translate(str.maketrans("aeiou", "áèîõü")),
    "stacked accents": lambda word: between(word, "\u0301\u0316\u0334"),
    "bidi marks": lambda word: between(word, "\u202d\u202c"),
    "leet": with_digits,
    "leet i as !": lambda word: word.translate(str.maketrans("aios", "@!0$")),
    "spaced": lambda word: between(word, " "),
    "wide spaced": lambda word: between(word, "   "),
    "no-break spaced": lambda word: between(word, "\u00a0"),
    "line by line": lambda word: between(word, "\n"),
    "dotted": lambda word: between(word, "."),
    "dashed": lambda word: between(word, "-"),
    "underscored": lambda word: between(word, "_"),
    "starred": lambda word: between(word, "*"),
    "spaced leet": lambda word: between(with_digits(word), " "),
    "one dot": lambda word: word[:2] + "." + word[2:],
    "math bold": lambda word: shifted(word, 0x1D41A),
    "math fraktur": lambda word: shifted(word, 0x1D586),
    "circled": lambda word: shifted(word, 0x24D0),
    "parenthesized": lambda word: shifted(word, 0x249C),
    "black tiles": lambda word: shifted(word, 0x1F170),
    "black circles": lambda word: shifted(word, 0x1F150),
    "regional indicators": lambda word: shifted(word, 0x1F1E6),
    "emoji-split": lambda word: between(word, "🔥"),
    "small caps": lambda word: word.translate(str.maketrans("abcdegmnoprtuv", "ᴀʙᴄᴅᴇɢᴍɴᴏᴘʀᴛᴜᴠ")),
    "stretched": lambda word: word[:1] + word[1] * 5 + word[2:],
    "stretched end": lambda word: word + word[-1] * 4,
    "stretched leet": lambda word: with_digits(word) + with_digits(word[-1]) * 4,
    "weighted": lambda word: f"(({word}:1.4))",
    "quoted": lambda word: f"“{word}”,",
}
WORDS = {"nude": "sexual", "topless": "sexual", "gore": "violence", "decapitated": "violence"}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("frame", ["{}", "a portrait, {} figure in a garden"])
def test_a_disguised_word_is_found(word: str, disguise: str, frame: str) -> None:
    hidden = DISGUISES[disguise](word)
    assert category(frame.format(hidden)) == WORDS[word]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a severed head on a table", "violence"),
        ("a SEVERED\u200b  h3ad", "violence"),
        ("s e v e r e d", None),  # half of a phrase isn't the phrase
        ("severed ties", None),
        ("portrait of a white\nsupremacist", "hate"),
        ("k k k rally", "hate"),
        ("nude woman decapitated", "sexual"),  # the first category that applies is the one told
    ],
)
def test_phrases_are_found_whole(prompt: str, expected: str | None) -> None:
    assert category(prompt) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "   \n\t ",
        "…!?—",
        "Scunthorpe town hall in the rain",
        "assess the assassin's class",
        "a cocktail on a bar, 1930s Essex",
        "a peacock and a cockatoo, Sussex downs",
        "Gore-Tex jacket, studio light",
        "Al Gore giving a lecture",
        "Gustav Doré engraving, Grimsby docks",
        "a comet seen with the naked eye",
        "naked mole rats in a burrow",
        "great tits and blue tits at a feeder",
        "pussy willow branches in a vase",
        "a field of rapeseed, a rape field in bloom",
        "analysis of a titanium Titan, Hancock's half hour",
        "therapist's office, grape vines, drapes, scraped paint",
        "wrapped gifts and a rapper on stage",
        "a happy child with a red balloon",
        "two kids and a baby on a beach, 1960s photo",
        "a 9 year old whisky cask",
        "sexy red sports car",  # suggestive alone, and no minor
        "seductive lighting, lingerie shop window",
        "a boy, an old man and a dog",
        "sensual jazz, prelude in a minor key",
        "sextant, Middlesex, unisex bicycle, sextet",
        "skill, skilled killers whale",
        "cat, 4k, 8k, f/1.8, 35mm, ISO-400, v1.5, 3d, --ar 16:9 <lora:ink:0.8>",
        "hmmm, sooo cooool, zzz, aaaaah!!!",
        "A B C D E F alphabet poster",
        "I a m a cat",
        "1 2 3 4 5 6 7",
        "лес зимой, хор мальчиков на сцене",  # a winter forest, a choir
        "γάτα στον κήπο",  # a cat in the garden
        "庭にいる猫、朝の光",
        "قطة في الحديقة",
        "बगीचे में बिल्ली",
    ],
)
def test_harmless_prompts_pass(prompt: str) -> None:
    assert category(prompt) is None


# A minor and sexual content together. Only words of the two lists: no sentence of the kind.


@pytest.mark.parametrize(
    "minor",
    ["child", "KIDS", "teenager", "school girl", "ch1ld", "c.h.i.l.d", "12 year old", "12-year-old",
     "seven years old", "aged 15", "16yo", "９ ｙｅａｒ ｏｌｄ", "t\u200bee\u200bn",
     "under-age", "kiiiid"],
)  # fmt: skip
@pytest.mark.parametrize("sexual", ["nude", "n u d e", "sexy", "erotic", "s3xual"])
def test_a_minor_and_sexual_content_are_never_together(minor: str, sexual: str) -> None:
    for prompt in (f"{minor}, {sexual}", f"{sexual} | much else in between, oil | {minor}"):
        verdict = CHECK.judge(prompt)
        assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "sexual_minors")


@pytest.mark.parametrize("age", ["18 year old", "thirty years old", "aged 45"])
def test_an_adults_age_is_no_minors(age: str) -> None:
    assert category(f"{age}, sexy") is None


def test_it_is_the_same_in_the_negative_prompt() -> None:
    assert category("child, nude", "negative_prompt") == "sexual_minors"
    assert category("loli", "negative_prompt") == "sexual_minors"


def test_a_negative_prompt_may_steer_away_but_not_undress() -> None:
    assert category("nsfw, nude, gore, mutilated hands", "negative_prompt") is None
    assert category("clothes", "negative_prompt") == "sexual"
    assert category("c l o t h e s, blurry", "negative_prompt") == "sexual"
    assert category("a shop full of clothes") is None


# The verdict, and operators' lists


def test_a_verdict_names_check_version_and_reason() -> None:
    verdict = CHECK.judge("nude", field="prompt")
    assert (verdict.check, verdict.version, verdict.score) == ("blocklist", CHECK.version, 1.0)
    assert verdict.detail == "The prompt asks for sexual content."
    assert "nude" not in verdict.detail  # a refusal is no lesson
    assert CHECK.judge("a cat").version == CHECK.version


def test_an_operators_file_adds_words(tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    file.write_text('[block]\nhate = ["Purple Unicorn"]\n[conjunction]\nsuggestive = ["zorp"]\n')
    check = PromptCheck.from_file(file)
    assert check.judge("a PURPLE un1c0rn").category == "hate"
    assert check.judge("zorp").category is None
    assert check.judge("child, zorp").category == "sexual_minors"
    assert check.judge("nude").category == "sexual"
    assert CHECK.judge("a purple unicorn").category is None
    assert check.version != CHECK.version
    assert check.version == PromptCheck.from_file(file).version


def test_an_operator_may_turn_categories_off_but_one(tmp_path: Path) -> None:
    file = tmp_path / "off.toml"
    file.write_text('off = ["sexual", "violence"]')
    check = PromptCheck.from_file(file)
    assert check.judge("nude, gory").category is None
    assert check.judge("swastika").category == "hate"
    assert check.judge("child, nude").category == "sexual_minors"
    assert check.version != CHECK.version
    file.write_text('off = ["sexual_minors"]')
    with pytest.raises(OperatorError, match=r"off\.toml"):
        PromptCheck.from_file(file)


@pytest.mark.parametrize(
    "content",
    [
        b"[block",
        b"\xff\xfe",
        b'[block]\nsexy = ["x"]',
        b'benign = ["child"]',  # would be a way round the conjunction
        b"[block]\nhate = 3",
        b'[block]\nhate = ["..."]',
        b"[block]\nhate = [1]",
        b"block = 1",
        b'off = "hate"',
    ],
)
def test_a_file_with_something_unknown_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "words.toml"
    file.write_bytes(content)
    with pytest.raises(OperatorError, match=r"words\.toml"):
        PromptCheck.from_file(file)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"none\.toml"):
        PromptCheck.from_file(tmp_path / "none.toml")


@given(st.text(max_size=300))
def test_any_text_is_judged_the_same_twice(text: str) -> None:
    assert CHECK.judge(text) == PromptCheck.default().judge(text)


@given(before=st.text(max_size=60), after=st.text(max_size=60))
def test_a_listed_word_is_found_in_any_surroundings(before: str, after: str) -> None:
    assert category(f"{before} dismembered {after}") is not None


def test_a_long_prompt_is_judged_quickly() -> None:
    prompt = ("a quiet harbour at dawn, oil on canvas, muted colours " * 40)[:2000]
    times = []
    for _ in range(20):
        start = time.perf_counter()
        CHECK.judge(prompt)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.003  # measured 0.15 ms; machines that run tests are busy


@pytest.mark.parametrize(
    "unit", ["n ", "é 🔥x ", "a1!b2@ ", "aaa1 ", "\ufdfa", "a.", "\u0301", "!"]
)
def test_no_prompt_of_the_longest_length_takes_long(unit: str) -> None:
    start = time.perf_counter()
    CHECK.judge((unit * 2000)[:2000])
    assert time.perf_counter() - start < 0.5


# Pictures

FINE = {"finite": 1.0}


def canary(seed: int = 1, size: int = 256) -> Picture:
    """A benign picture with large shapes: smooth coloured noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def through(pixels: Picture, form: str, **options: int) -> Picture:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return np.array(Image.open(file).convert("RGB"))


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> PictureCheck:
    file = tmp_path_factory.mktemp("bank") / "known.txt"
    digits = f"{phash.hashes(phash.small(canary()))[0]:016x}"
    file.write_text(f"# a comment\n\n{digits} canary, benign\n")
    return PictureCheck.from_file(file)


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "as it is": lambda pixels: pixels,
    "jpeg 20": lambda pixels: through(pixels, "jpeg", quality=20),
    "webp 50": lambda pixels: through(pixels, "webp", quality=50),
    "a quarter of the size": lambda pixels: np.array(Image.fromarray(pixels).resize((64, 64))),
    "three times the size": lambda pixels: np.array(Image.fromarray(pixels).resize((768, 768))),
    "stretched": lambda pixels: np.array(Image.fromarray(pixels).resize((300, 200))),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upside down": lambda pixels: pixels[::-1],
    "turned 90": np.rot90,
    "turned 180": lambda pixels: np.rot90(pixels, 2),
    "turned 270, mirrored": lambda pixels: np.rot90(pixels, 3)[:, ::-1],
    "darker": lambda pixels: (pixels * 0.7).astype(np.uint8),
    "noisy": lambda pixels: np.clip(
        pixels + np.random.default_rng(9).normal(0, 12, pixels.shape), 0, 255
    ).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_known_picture_is_blocked_however_it_comes(check: PictureCheck, change: str) -> None:
    verdict = check.judge(np.ascontiguousarray(CHANGES[change](canary())), FINE)
    assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "known")
    assert verdict.version == check.version


def test_other_pictures_pass(check: PictureCheck) -> None:
    for seed in range(2, 302):
        verdict = check.judge(canary(seed, 64), FINE)
        assert verdict.kind is VerdictKind.ALLOW, seed


def test_the_bank_that_ships_is_empty_and_lets_pictures_pass() -> None:
    shipped = PictureCheck.default()
    assert shipped.judge(canary(), FINE).kind is VerdictKind.ALLOW


def test_without_the_score_nothing_is_judged(check: PictureCheck) -> None:
    for scores in ({}, {"other": 1.0}):
        with pytest.raises(SafetyUnavailable, match="finite"):
            check.judge(canary(), scores)


@pytest.mark.parametrize("score", [0.0, 0.999, float("nan"), float("inf"), -1.0])
def test_a_damaged_picture_is_blocked(check: PictureCheck, score: float) -> None:
    verdict = check.judge(canary(), {"finite": score})
    assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "damaged")


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_picture_cannot_be_compared_and_is_blocked(check: PictureCheck, level: int) -> None:
    flat = np.full((96, 64, 3), level, np.uint8)
    grain = np.random.default_rng(4).integers(0, 3, flat.shape, dtype=np.uint8)
    for pixels in (flat, np.minimum(flat, 252) + grain):
        verdict = check.judge(pixels, FINE)
        assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "unjudgeable")


def test_a_small_shape_on_a_plain_ground_is_judged(check: PictureCheck) -> None:
    pixels = np.full((256, 256, 3), 240, np.uint8)
    pixels[100:130, 60:90] = (200, 30, 30)
    assert check.judge(pixels, FINE).kind is VerdictKind.ALLOW


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32),
     np.zeros((0, 8, 3), np.uint8)],
)  # fmt: skip
def test_what_is_no_picture_is_not_judged(check: PictureCheck, wrong: Picture) -> None:
    with pytest.raises(SafetyUnavailable):
        check.judge(wrong, FINE)


@pytest.mark.parametrize("line", ["xyz", "0123", "0123456789abcdeg", "0123456789abcdef0"])
def test_a_bank_with_a_bad_line_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "bank.txt"
    file.write_text(f"0123456789abcdef fine\n{line}\n")
    with pytest.raises(OperatorError, match=r"bank\.txt, line 2"):
        PictureCheck.from_file(file)
    with pytest.raises(OperatorError, match=r"none\.txt"):
        PictureCheck.from_file(tmp_path / "none.txt")


def test_another_bank_is_another_version() -> None:
    one, two = KnownPictures((1,)), KnownPictures((2,))
    assert PictureCheck(one).version != PictureCheck(two).version
