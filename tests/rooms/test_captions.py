"""Captions are true of their scene, silent on what they leave out, and read by the tokenizer."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from training import lexicon, readers, shapes, text, tokenizer
from training.captions import ATTRIBUTES, UNSAID, WORDS_MAX, Said, caption, said
from training.scenes import COLOURS, OBJECTS, PLACES, Scene, sample_scene

EXAMPLE = "a cosy scarlet cottage on the right under a starry night, snowy hills"


def captions(count: int, seed: int = 0) -> Iterator[tuple[Scene, str, Said]]:
    rng = random.Random(seed)
    for _ in range(count):
        scene = sample_scene(rng)
        yield scene, *said(scene, rng)


@pytest.fixture(scope="module")
def small_tokenizer() -> PreTrainedTokenizerBase:
    return tokenizer.train(captions=3000)


def test_what_is_said_is_true_of_the_scene() -> None:
    for scene, _, what in captions(3000):
        for name in ATTRIBUTES:
            assert getattr(what, name) in {getattr(scene, name), UNSAID}
        things = {thing.kind: thing for thing in scene.things}
        for kind, found in what.things.items():
            assert found.colour in {things[kind].colour, UNSAID}
            assert found.place in {things[kind].place, UNSAID}


def test_every_attribute_is_said_often_and_left_out_often() -> None:
    counts = Counter(
        (name, getattr(what, name) == UNSAID)
        for _, _, what in captions(3000)
        for name in ATTRIBUTES
    )
    assert all(counts[name, unsaid] > 500 for name in ATTRIBUTES for unsaid in (True, False))


def test_an_object_left_out_is_not_mentioned() -> None:
    names = {
        kind: {n for n in words.split("|") if len(n.split()) == 1}
        for kind, words in lexicon.KINDS.items()
    }
    for scene, text_, what in captions(3000):
        # "country house" and "light house" share a word, "home" and the like do not.
        spoken = set(re.findall(r"[a-z]+", text_.lower())) - {"house", "light"}
        for thing in scene.things:
            assert thing.kind in what.things or not spoken & names[thing.kind], text_


def test_a_time_left_out_is_not_mentioned() -> None:
    own = {"dawn": "dawn", "day": "noon", "sunset": "dusk", "night": "midnight"}
    for scene, text_, what in captions(3000):
        if what.time == UNSAID:
            assert own[scene.time] not in text_.lower()


def test_a_colour_left_out_is_not_mentioned_and_a_said_one_is() -> None:
    # Words that have another meaning elsewhere ("golden hour", "a rose garden") prove nothing.
    elsewhere = {"golden"}
    own = {
        colour: {name for name in names.split("|") if " " not in name} - elsewhere
        for colour, names in lexicon.COLOURS.items()
    }
    for _, text_, what in captions(3000):
        spoken = set(re.findall(r"[a-z]+", text_.lower()))
        named = {thing.colour for thing in what.things.values()}
        for colour in COLOURS:
            if colour in named:
                assert spoken & set(re.findall("[a-z]+", lexicon.COLOURS[colour])), text_
            else:
                assert not spoken & own[colour], (colour, text_)


def test_no_place_is_mentioned_when_none_is_said() -> None:
    for _, text_, what in captions(3000):
        if all(thing.place == UNSAID for thing in what.things.values()):
            assert not set(re.findall(r"[a-z]+", text_.lower())) & {"left", "right", "centre"}


def test_each_place_stands_nearest_its_own_object() -> None:
    tents, castles = (lexicon.KINDS[kind] for kind in ("tent", "castle"))
    found = re.compile(rf"\b(?:({tents})|({castles})|(left)|(right))\b")
    rng = random.Random(3)
    bound = 0
    for _ in range(400):
        scene = sample_scene(rng)
        tent = replace(scene.things[0], kind="tent", place="left")
        castle = replace(scene.things[0], kind="castle", place="right")
        text_, _ = said(replace(scene, things=(tent, castle)), rng, everything=True)
        order = "".join("tclr"[(hit.lastindex or 0) - 1] for hit in found.finditer(text_.lower()))
        # A tent to the left of a castle, and the other way round, say both places at once.
        assert order in {"tlcr", "crtl", "ltrc", "rclt", "tlc", "crt"}, text_
        bound += len(order) == 4
    assert bound > 300


def test_captions_come_in_very_many_forms() -> None:
    scene = sample_scene(random.Random(5))
    rng = random.Random(6)
    assert len({caption(scene, rng).lower() for _ in range(1000)}) > 950


def test_a_caption_is_short_enough_for_the_encoders(
    small_tokenizer: PreTrainedTokenizerBase,
) -> None:
    for _, text_, _ in captions(3000):
        assert len(re.findall(r"\w+|[^\w\s]", text_)) <= WORDS_MAX
        assert len(small_tokenizer(text_).input_ids) <= tokenizer.LENGTH


def test_the_same_random_source_gives_the_same_caption() -> None:
    scene = sample_scene(random.Random(7))
    assert caption(scene, random.Random(8)) == caption(scene, random.Random(8))


def test_everything_said_leaves_out_nothing_but_an_empty_sky() -> None:
    rng = random.Random(9)
    for _ in range(500):
        scene = sample_scene(rng)
        _, what = said(scene, rng, everything=True)
        assert len(what.things) == len(scene.things)
        assert all(t.colour != UNSAID and t.place != UNSAID for t in what.things.values())
        unsaid = {name for name in ATTRIBUTES if getattr(what, name) == UNSAID}
        assert not unsaid or (unsaid == {"light"} and scene.light == "none")


def test_the_example_prompt_is_within_the_vocabulary(
    small_tokenizer: PreTrainedTokenizerBase,
) -> None:
    words = set(re.findall(r"[a-z]+", EXAMPLE))
    assert words <= tokenizer.caption_words() | {"a", "the", "on", "under"}
    assert len(small_tokenizer.tokenize(EXAMPLE)) == len(EXAMPLE.replace(",", " ,").split())


@pytest.mark.parametrize("strange", ["日本の冬", "façade \x00 ЖÆ", "x" * 40, "🎈🎈"])
def test_no_text_is_unknown(small_tokenizer: PreTrainedTokenizerBase, strange: str) -> None:
    ids = small_tokenizer(strange, add_special_tokens=False).input_ids
    assert ids
    assert small_tokenizer.unk_token_id not in ids


def test_the_tokenizer_is_the_same_after_saving(
    small_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    small_tokenizer.save_pretrained(tmp_path)
    loaded = type(small_tokenizer).from_pretrained(tmp_path)
    assert loaded.model_max_length == tokenizer.LENGTH
    assert loaded(EXAMPLE.upper()).input_ids == small_tokenizer(EXAMPLE).input_ids
    ends = (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id)
    assert ends == (0, 1, 1)


def test_the_pooled_output_is_the_one_at_the_first_end(
    small_tokenizer: PreTrainedTokenizerBase,
) -> None:
    _, encoder = shapes.text_encoders(small_tokenizer)
    numbers = text.encode(small_tokenizer, [EXAMPLE, "a red tent", ""])
    ends = [row.index(small_tokenizer.eos_token_id) for row in numbers.tolist()]
    with torch.inference_mode():
        output = encoder.eval()(numbers)
        picked = output.last_hidden_state[torch.arange(3), ends]
        assert torch.allclose(output.text_embeds, encoder.text_projection(picked))
    assert ends == [15, 4, 1]


def test_targets_name_what_is_said_and_ignore_objects_that_are_not_there() -> None:
    for _, _, what in captions(200):
        found = dict(zip((name for name, _ in readers.ITEMS), readers.targets(what), strict=True))
        for name, classes in readers.ITEMS[: len(ATTRIBUTES)]:
            assert classes[found[name]] == getattr(what, name)
        for kind in OBJECTS:
            assert found[f"{kind} there"] == int(kind in what.things)
            if kind in what.things:
                place = what.things[kind].place
                assert found[f"{kind} place"] == (UNSAID, *PLACES).index(place)
            else:
                assert found[f"{kind} colour"] == readers.IGNORED


def test_a_roughened_caption_keeps_nearly_all_its_meaning_words() -> None:
    rng = random.Random(10)
    words = tokenizer.ordinary_words()
    meaning = tokenizer.caption_words() - text.DROPPED
    for _, text_, _ in captions(500):
        kept = Counter(re.findall(r"[a-z]+", text.roughen(text_, rng, words).lower()))
        lost = Counter(re.findall(r"[a-z]+", text_.lower())) - kept
        assert sum(count for word, count in lost.items() if word in meaning) <= 1


@pytest.fixture(scope="module")
def run(small_tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint of a short training."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    training = text.Training(small_tokenizer, 60, folder)
    source = text.batches(small_tokenizer, random.Random(0), size=8)
    losses = [training.step(*next(source)) for _ in range(15)]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    training.elapsed_s = 5.0
    training.save()
    torch.set_num_threads(threads)
    return folder


def test_a_stopped_run_goes_on_where_it_was(
    small_tokenizer: PreTrainedTokenizerBase, run: Path
) -> None:
    training = text.Training(small_tokenizer, 60, run)
    made = [parameter.clone() for parameter in training.encoders.parameters()]
    training.resume()
    assert (training.steps, training.elapsed_s) == (15, 5.0)
    changed = zip(made, training.encoders.parameters(), strict=True)
    assert sum(not torch.equal(a, b) for a, b in changed) > len(made) / 2


def test_the_parts_written_are_the_encoders_trained(
    small_tokenizer: PreTrainedTokenizerBase, run: Path, tmp_path: Path
) -> None:
    training = text.Training(small_tokenizer, 60, run)
    training.resume()
    training.export(tmp_path)
    for name, encoder in (
        ("text_encoder", training.encoders.first),
        ("text_encoder_2", training.encoders.second),
    ):
        kind = type(encoder)
        written = kind.from_pretrained(tmp_path / name).state_dict()
        assert all(torch.equal(written[key], value) for key, value in encoder.state_dict().items())
        assert not list(tmp_path.glob(".*"))
