"""Text for the prompt classifier: prompts that ask for what a policy refuses, and harmless ones.

Made of frames, the lists, and the phrases of safety_phrases.toml; nothing is fetched. Phrases are
split in two before anything is made, so that the figures are of phrases that weren't learned.
Knows nothing of features or of models.
"""

from __future__ import annotations

import functools
import random
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from calotype.safety.classifier import LABELS
from calotype.safety.lists import Lists
from training.captions import caption
from training.scenes import sample_scene

PHRASES = Path(__file__).with_name("safety_phrases.toml")
WORDS = Path(__file__).with_name("words.txt")
_SLOT = re.compile(r"\{(\w+)\}")
HELD_OUT = 0.2  # share of the phrases that are only for measuring


def _parts(text: str) -> list[str]:
    return text.split("|")


_STYLES = _parts(
    "oil painting|watercolour|pencil drawing|anime style|cinematic still|35mm photograph|polaroid|"
    "studio photo|concept art|low poly render|pixel art|comic panel|ink sketch|vintage poster|"
    "charcoal|digital art|film noir|stained glass|3d render|documentary photo|Aquarell|Ölgemälde|"
    "peinture à l'huile|óleo sobre lienzo|aquarela|acquerello|масляная живопись|油画|水彩画|写真"
)
_EXTRAS = _parts(
    "highly detailed|8k|soft light|golden hour|bokeh|dramatic lighting|muted colours|wide angle|"
    "close up|masterpiece|trending|sharp focus|volumetric fog|from above|in the rain|at night|"
    "in a forest|in a city street|on a mountain|by the sea|in a small room|1970s|symmetrical|"
    "minimalist|ultra realistic|--ar 16:9|(best quality:1.2)|award winning|grainy|pastel"
)
_SUBJECTS = _parts(
    "a woman|a man|an old fisherman|a queen|a robot|a cat|a dog|two friends|a couple|a knight|"
    "a dancer|a girl|a boy|a family|a soldier|a nurse|a teacher|a wizard|an astronaut|a horse|"
    "a portrait of a lady|a businessman|a bride|a farmer|a chef|a detective|a samurai|a child|"
    "eine Frau|ein Mann|une femme|un homme|una mujer|un hombre|uma mulher|um homem|una donna|"
    "женщина|мужчина|一个女人|男の人|a red car|a castle|a cup of coffee|a wooden house|a spaceship|"
    "a bowl of fruit|a lighthouse|an old book|a city skyline|a garden|a waterfall|a mountain lake"
)
_COLOURS = _parts("white|black|red|blue|green|yellow|brown|pink|weiße|noir|blanco|rosso|белый|白い")
_DOING = _parts(
    "reading a book|walking in the park|drinking tea|smiling at the camera|playing the violin|"
    "wearing a blue coat|in a red dress|with long hair|cooking dinner|riding a bicycle|asleep|"
    "dancing in the street|holding an umbrella|looking out of a window|in armour|at a desk|"
    "with a hat|under a tree|on a bench|in a kitchen|with flowers|laughing|running on the beach|"
    "lying in the grass|swimming in a lake|on a bed with a laptop|in front of a mirror|"
    "in the snow|feeding birds|with glowing eyes|made of glass|in the style of an old master|"
    "im Garten|dans la rue|en la playa|na floresta|in una piazza|в лесу|在花园里|公園で"
)


@dataclass(frozen=True)
class Phrases:
    """Phrases by label, and harmless ones that look bad."""

    asked: dict[str, list[str]]
    harmless: list[str]
    grammar: dict[str, dict[str, list[str]]]  # by label: patterns, and the words of each slot

    @classmethod
    def split(cls, seed: int) -> tuple[Phrases, Phrases]:
        """Those to learn from and those to measure with; listed words are to learn from."""
        raw = tomllib.loads(PHRASES.read_text(encoding="utf-8"))
        rng = random.Random(seed)
        learned: dict[str, list[str]] = {}
        held: dict[str, list[str]] = {}
        for label in LABELS:
            learned[label], held[label] = _halves(raw["asked"][label], rng)
        harmless, harmless_held = _halves(raw["harmless"]["looks_bad"], rng)
        grammar = raw["grammar"]
        return cls(learned, harmless, grammar), cls(held, harmless_held, {})


def _halves(phrases: Sequence[str], rng: random.Random) -> tuple[list[str], list[str]]:
    shuffled = rng.sample(phrases, len(phrases))
    count = round(len(shuffled) * HELD_OUT)
    return shuffled[count:], shuffled[:count]


def composed(grammar: dict[str, list[str]], rng: random.Random) -> str:
    """A phrase of a grammar: one of its patterns, with a word in each slot."""
    pattern = rng.choice(grammar["patterns"])
    return _SLOT.sub(lambda slot: rng.choice(grammar[slot.group(1)]), pattern)


@functools.cache
def _everyday_words() -> tuple[str, ...]:
    return tuple(WORDS.read_text(encoding="utf-8").split())


def harmless(rng: random.Random) -> str:
    """A prompt of everyday things: a drawn scene, a few words, or people at something."""
    chance = rng.random()
    if chance < 0.3:
        return _framed(caption(sample_scene(rng), rng), rng)
    if chance < 0.6:  # words that mean nothing together: no word by itself is harmful
        few = rng.choices(_everyday_words(), k=rng.choice((1, 2, 2, 3, 4, 6)))
        if rng.random() < 0.3:
            few.insert(rng.randrange(len(few)), rng.choice(_COLOURS))
        return " ".join(few) if rng.random() < 0.6 else _framed(f"a {' '.join(few)}", rng)
    text = rng.choice(_SUBJECTS)
    if rng.random() < 0.85:
        text += " " + rng.choice(_DOING)
    if rng.random() < 0.2:
        text += f" and {rng.choice(_SUBJECTS)}"
    return _framed(text, rng)


def asking(phrase: str, rng: random.Random) -> str:
    """A prompt that asks for what the phrase says."""
    if rng.random() < 0.12:
        phrase = _slipped(phrase, rng)
    match rng.randrange(5):
        case 0:
            return _framed(phrase, rng)
        case 1:
            return _framed(f"{rng.choice(_SUBJECTS)}, {phrase}", rng)
        case 2:
            return _framed(f"{phrase}, {rng.choice(_SUBJECTS)} {rng.choice(_DOING)}", rng)
        case 3:
            return _framed(f"{rng.choice(_SUBJECTS)} {rng.choice(_DOING)}, {phrase}", rng)
        case _:
            return phrase


def _framed(text: str, rng: random.Random) -> str:
    """The text with a style and some extras around, as people write them."""
    extras = rng.sample(_EXTRAS, rng.choice((0, 0, 1, 2, 3)))
    style = rng.choice(_STYLES)
    match rng.randrange(4):
        case 0:
            return ", ".join([text, style, *extras])
        case 1:
            return ", ".join([f"{style} of {text}", *extras])
        case 2:
            return ", ".join([*extras, text])
        case _:
            return text


def _slipped(phrase: str, rng: random.Random) -> str:
    """The phrase with one slip of the pen in one of its longer words."""
    words = phrase.split()
    long = [place for place, word in enumerate(words) if len(word) > 4]
    if long:
        place = rng.choice(long)
        word, at = words[place], rng.randrange(1, len(words[place]) - 1)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        words[place] = rng.choice((swapped, word[:at] + word[at + 1 :]))
    return " ".join(words)


def listed(lists: Lists) -> dict[str, list[str]]:
    """The lists' phrases by label of the classifier; sexual_minors is never a matter of scores."""
    found = {label: list(lists.block.get(label, ())) for label in LABELS}
    figures = [name for name in lists.figures if " " in name]
    rng = random.Random(0)
    found["harassment"] = [
        f"{name} {how}" for name in figures for how in rng.sample(lists.degrading, 3)
    ]
    return found


def examples(
    phrases: Phrases, lists: Lists | None, each: int, rng: random.Random
) -> Iterator[tuple[str, str | None]]:
    """Prompts and what they ask for (None: nothing refused), ``each`` of every label.

    With ``lists`` a quarter of what is asked uses their words.
    """
    words = listed(lists) if lists else {}
    for label in LABELS:
        for _ in range(each):
            chance = rng.random()
            if lists and chance < 0.25:
                phrase = rng.choice(words[label])
            elif phrases.grammar and chance < 0.65:
                phrase = composed(phrases.grammar[label], rng)
            else:
                phrase = rng.choice(phrases.asked[label])
            yield asking(phrase, rng), label
    for _ in range(each * 6):
        yield harmless(rng), None
    for _ in range(each * 5):
        look = rng.choice(phrases.harmless)
        yield (_framed(look, rng) if rng.random() < 0.7 else look), None
    allowed = lists.allowed if lists else ()
    for phrase in allowed:
        for _ in range(8):
            yield _framed(phrase, rng), None
