"""The tokenizer of both text encoders: CLIP's kind of byte-level BPE, with words of our own.

``python -m training.tokenizer`` learns the merges from captions of scenes and from a list of
ordinary English words, so that a word no caption has is a few tokens and not a row of letters,
and writes a folder that ``transformers.CLIPTokenizer.from_pretrained`` loads. All bytes are in the
vocabulary: no text is unknown.

The first two tokens are the start's and the end's. The end's must not be 2: transformers'
``CLIPTextModel`` reads a configuration with ``eos_token_id == 2`` as one of the first CLIPs, and
would then pool at the largest token of a text in place of its end.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from training import lexicon
from training.captions import caption
from training.scenes import is_held_out, sample_scene

ROOT = Path(__file__).parent
FOLDER = ROOT / "runs" / "parts" / "tokenizer"
TOKENS = 3000  # in the vocabulary, at most
LENGTH = 48  # tokens the encoders read, both ends counted
CAPTIONS = 100_000
WORD_END = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"


def ordinary_words() -> list[str]:
    """Everyday English words that captions do not give a meaning to, sorted."""
    words = set((ROOT / "words.txt").read_text().split())
    return sorted(words - caption_words())


def caption_words() -> set[str]:
    """All words that captions are made of, lower case."""
    found: set[str] = set()

    def take(part: object) -> None:
        if isinstance(part, str):
            found.update(re.findall(r"[^\W\d_]+", part.lower()))
        elif isinstance(part, dict):
            for value in part.values():
                take(value)
        elif isinstance(part, (tuple, list)):
            for value in part:
                take(value)

    take({name: value for name, value in vars(lexicon).items() if name.isupper()})
    return found


def _texts(captions: int, rng: random.Random) -> Iterator[str]:
    for _ in range(captions):
        scene = sample_scene(rng)
        if not is_held_out(scene):
            yield caption(scene, rng)
    # Often enough that every caption word becomes one token, and ordinary words mostly few.
    yield from sorted(caption_words()) * 200
    yield from ordinary_words() * 20


def train(captions: int = CAPTIONS, seed: int = 0) -> PreTrainedTokenizerBase:
    """Learn the merges; the same arguments give the same tokenizer."""
    learner: Tokenizer = CLIPTokenizer(vocab={START: 0, END: 1}, merges=[]).backend_tokenizer
    letters = sorted(ByteLevel.alphabet())
    letters += [letter + WORD_END for letter in letters]
    trainer = BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=[START, END],
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    learner.train_from_iterator(_texts(captions, random.Random(seed)), trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    # Our own numbering: the trainer's vocabulary holds only the letters that it has met.
    merges = merges[: TOKENS - 2 - len(letters)]
    tokens = [START, END, *letters, *("".join(pair) for pair in merges)]
    # Two merges may make one token; the first has its number.
    numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=LENGTH)


def main() -> None:
    """Train and save from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--captions", type=int, default=CAPTIONS)
    arguments = parser.parse_args()
    learned = train(arguments.captions)
    learned.save_pretrained(arguments.folder)
    print(f"{arguments.folder}: {len(learned)} tokens")


if __name__ == "__main__":
    main()
