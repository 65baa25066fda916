"""The forms a caption can take: from what is to be said to a line of English.

Words come from ``training.lexicon``. Colours and places are bound to their object by nearness: a
caption puts every place before its object or every place after it, never both. Articles are all
"a" here, and spaces are loose: ``training.captions`` puts both right.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from training import lexicon
from training.lexicon import Words
from training.statements import ATTRIBUTES, UNSAID, Said

_LEXICON: Mapping[str, Mapping[str, Words]] = {
    "time": lexicon.TIME,
    "weather": lexicon.WEATHER,
    "season": lexicon.SEASON,
    "light": lexicon.LIGHT,
}


class Writer:
    """Writes one caption; ``plain`` leaves filler words out."""

    def __init__(self, chosen: Said, rng: random.Random, *, plain: bool) -> None:
        self.said = chosen
        self.rng = rng
        self.filler = 0.0 if plain or rng.random() < 0.35 else rng.uniform(0.1, 0.5)
        self.article = "" if rng.random() < 0.15 else "a"
        self.kinds = list(chosen.things)
        rng.shuffle(self.kinds)
        self.before = False  # whether places stand before their objects

    def chance(self, share: float) -> bool:
        """True this often."""
        return self.rng.random() < share

    def pick(self, of: Sequence[str] | str) -> str:
        """Any one of a sequence, or of a string's parts between "|"."""
        return self.rng.choice(of.split("|") if isinstance(of, str) else of)

    def filling(self, of: str) -> str:
        """A filler word from ``of``, sometimes, else nothing."""
        return self.pick(of) if self.chance(self.filler) else ""

    def write(self) -> str:
        """The caption, in any form."""
        form = self.rng.choices(
            (self.list_of, self.one_sentence, self.sentences, self.labels), (4, 6, 2, 0.6)
        )[0]
        return form()

    # Things

    def thing(self, kind: str) -> str:
        """An object with its colour and no place: "a cosy red tent", "a tent painted red"."""
        name = self.pick(lexicon.KINDS[kind])
        colour = self.said.things[kind].colour
        filler = self.filling(lexicon.FILLERS)
        if colour == UNSAID:
            return f"{self.article} {filler} {name}"
        colour = self.pick(lexicon.COLOURS[colour])
        form = self.rng.random()
        if form < 0.82:
            coloured = "" if self.chance(0.93) else self.pick("coloured|colored|painted")
            words = (filler, colour, coloured) if self.chance(0.75) else (colour, coloured, filler)
            return f"{self.article} {' '.join(words)} {name}"
        after = self.pick("in {}|painted {}|that is {}|which is {}|of {} colour|({})")
        return f"{self.article} {filler} {name} {after.format(colour)}"

    def placed(self, kind: str, *, before: bool, short: bool = False) -> str:
        """An object with its place, before or after it, if that is said."""
        place = self.said.things[kind].place
        thing = self.thing(kind)
        if place == UNSAID:
            return thing
        words = self.pick((lexicon.SHORT_PLACES if short else lexicon.PLACES)[place])
        if before:
            return f"{words} {thing}" if not short else f"{words}: {thing}"
        verb = "" if short or self.chance(0.8) else self.pick("standing|placed|seen|shown|set")
        return f"{thing} {verb} {words}" if not short else f"{thing} ({words})"

    def things(self) -> list[str]:
        """Each object as a phrase, places all before or all after them."""
        placed = [self.said.things[kind].place != UNSAID for kind in self.kinds]
        self.before = before = all(placed) and self.chance(0.25)
        if len(placed) == 2 and all(placed) and self.chance(0.1):
            beside = self.beside()
            if beside:
                return [beside]
        short = all(placed) and self.chance(0.1)
        return [self.placed(kind, before=before, short=short) for kind in self.kinds]

    def beside(self) -> str:
        """Two objects at both ends, the one told by the other: "a tent to the left of a mill"."""
        first, second = (self.said.things[kind].place for kind in self.kinds)
        if {first, second} != {"left", "right"}:
            return ""
        relation = self.pick("to the {} of|{} of|on the {} side of").format(first)
        return f"{self.thing(self.kinds[0])} {relation} {self.thing(self.kinds[1])}"

    # Setting

    def adjectives(self, names: list[str], share: float, at_most: int = 2) -> list[str]:
        """Adjectives for some of the attributes ``names``, which are taken off that list."""
        found: list[str] = []
        for name in self.rng.sample(names, len(names)):
            if len(found) == at_most or name == "terrain":
                continue
            words = _LEXICON[name][getattr(self.said, name)].adjectives
            if words and self.chance(share):
                names.remove(name)
                found.append(self.pick(words))
        return found

    def land(self, names: list[str]) -> tuple[str, str]:
        """The terrain with what is fused to it: alone, and led into by a preposition."""
        names.remove("terrain")
        noun, leads = self.rng.choice(lexicon.TERRAIN[self.said.terrain])
        filler = self.filling(lexicon.SETTING_FILLERS)
        head = " ".join((*self.adjectives(names, 0.35), filler, noun))
        lead = self.rng.choice(leads)
        article = lead.split()[-1] if lead.endswith((" a", " the")) else ""
        return f"{article} {head}" if self.chance(0.5) else head, f"{lead} {head}"

    def hour(self, names: list[str]) -> tuple[str, str]:
        """The time of day with adjectives: "a foggy autumn morning", "on a starry night"."""
        words = lexicon.TIME[self.said.time]
        names.remove("time")
        found = self.adjectives(names, 0.45)
        if not found:
            return self.pick(words.nouns), self.pick(words.phrases)
        head = " ".join((self.filling(lexicon.SETTING_FILLERS), *found, self.pick(words.nouns)))
        article = "a" if self.chance(0.6) else ""
        return f"{article} {head}", f"{self.pick('on a|during a|under a|in a')} {head}"

    def sky(self, names: list[str]) -> tuple[str, str] | None:
        """A sky with adjectives: "a starry night sky"; None when none is fit for it."""
        fit = [name for name in names if name in {"time", "light"} or self.said.weather == "cloudy"]
        fit = [name for name in fit if name not in {"terrain", "season"}]
        left = list(fit)
        found = self.adjectives(left, 0.7)
        if not found:
            return None
        for name in set(fit) - set(left):
            names.remove(name)
        head = f"{' '.join(found)} sky"
        return head, f"{self.pick('under a|beneath a|below a|with a')} {head}"

    def setting(self) -> list[tuple[str, str]]:
        """All attributes of the setting as (alone, after a noun) pairs, in any order."""
        names = [name for name in ATTRIBUTES if getattr(self.said, name) != UNSAID]
        pairs: list[tuple[str, str]] = []
        if self.chance(0.12):
            sky = self.sky(names)
            pairs += [sky] if sky else []
        heads = [name for name in ("terrain", "time") if name in names]
        self.rng.shuffle(heads)
        for head in heads:
            if head in names:
                pairs.append(self.land(names) if head == "terrain" else self.hour(names))
        for name in names:
            words = _LEXICON[name][getattr(self.said, name)]
            pairs.append((self.pick(words.nouns), self.pick(words.phrases)))
        self.rng.shuffle(pairs)
        return pairs

    def clauses(self) -> list[str]:
        """All attributes of the setting as short sentences, in any order."""
        found = []
        for name in ATTRIBUTES:
            value = getattr(self.said, name)
            if value != UNSAID:
                table = lexicon.TERRAIN_CLAUSES
                found.append(
                    self.pick(table[value] if name == "terrain" else _LEXICON[name][value].clauses)
                )
        self.rng.shuffle(found)
        return found

    # Forms

    def opener(self, share: float) -> str:
        """What leads into a caption, sometimes: "a picture of"."""
        return self.pick(lexicon.OPENERS) if self.filler and self.chance(share) else ""

    def endings(self) -> list[str]:
        """What trails behind it, sometimes: "highly detailed"."""
        count = self.rng.choice((0, 0, 0, 1, 1, 2)) if self.filler else 0
        return [self.pick(lexicon.ENDINGS) for _ in range(count)]

    def list_of(self) -> str:
        """Pieces with commas between them, or with nothing: "red tent, night, snow, mountains"."""
        if self.chance(0.75):
            self.article = ""
        things = self.things()
        setting = [pair[self.chance(0.15)] for pair in self.setting()]
        if self.chance(0.4):
            pieces = things + setting
            self.rng.shuffle(pieces)
        else:
            pieces = things + setting if self.chance(0.7) else setting + things
        separator = self.rng.choices((", ", " ", "; ", " and ", ",", " - "), (12, 3, 1, 1, 1, 0.5))[
            0
        ]
        if separator == " " and len(things) == 2:  # else no one could tell whose place is whose
            separator = ", "
        return f"{self.opener(0.25)} {separator.join(pieces + self.endings())}"

    def group(self) -> str:
        """All objects in one phrase: "a red tent on the left and a white castle"."""
        things = self.things()
        joints = "and|and|, and|," if self.before else lexicon.JOINTS
        return f" {self.pick(joints)} ".join(things)

    def one_sentence(self) -> str:
        """A phrase with a noun first and the setting round it."""
        setting = self.setting()
        phrases = [phrase for _, phrase in setting]
        if self.kinds:
            head = self.group()
            verb = (
                self.pick("stands|is seen|can be seen|rests|waits|is") if self.chance(0.12) else ""
            )
            head = f"{head} {verb}" if verb and phrases else head
        else:
            head = (
                setting[0][0]
                if self.chance(0.8)
                else self.pick("a scene|a place|a landscape|a view")
            )
            phrases = phrases[1:] if head == setting[0][0] else phrases
        comma = self.pick((" ", " ", ", "))
        front = int(bool(self.kinds and phrases and self.chance(0.25)))
        lead = ", ".join(phrases[:front]) + self.pick((", ", ", ", " ")) if front else ""
        opener = "" if front else self.opener(0.4)
        text = f"{opener} {lead}{head}{comma}{comma.join(phrases[front:])}"
        return ", ".join([text.strip(" ,"), *self.endings()])

    def sentences(self) -> str:
        """Short full sentences: "There is a red tent on the left. It is night." """
        clauses = self.clauses()
        if not self.kinds:
            return ". ".join(clauses)
        start = self.pick("there is|here is|i see|you can see|we see|picture|")
        text = f"{start} {self.group()}"
        if not clauses:
            return text
        if self.chance(0.3):
            return f"{text}{self.pick((' while ', ' and ', ', '))}{' and '.join(clauses)}"
        joined = self.pick((". ", " and ", ", ")).join(clauses)
        return f"{joined}. {text}" if self.chance(0.25) else f"{text}. {joined}"

    def labels(self) -> str:
        """Objects with their properties behind them: "tent (red, left), night, snowy hills"."""
        pieces = []
        form = self.pick("{} ({})|{}: {}|{} - {}")
        for kind in self.kinds:
            thing = self.said.things[kind]
            properties = []
            if thing.colour != UNSAID:
                properties.append(self.pick(lexicon.COLOURS[thing.colour]))
            if thing.place != UNSAID:
                table = lexicon.SHORT_PLACES if self.chance(0.6) else lexicon.PLACES
                properties.append(self.pick(table[thing.place]))
            self.rng.shuffle(properties)
            name = self.pick(lexicon.KINDS[kind])
            pieces.append(form.format(name, ", ".join(properties)) if properties else name)
        separator = self.pick(", |; |. " if form == "{} ({})" else "; |. ")
        return separator.join(pieces + [alone for alone, _ in self.setting()])
