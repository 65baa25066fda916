"""The ledger: what a device holds, line by line, and what has to go for something else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calotype.core.events import ModelKnown
from calotype.core.nouns import Component, Reserve
from calotype.policy.ledger import Ledger, bytes_of, staging

GB = 10**9
TEXT, VAE = Component("t", "text_encoder", 4 * GB), Component("v", "vae", 2 * GB)


def known(
    name: str, size: int, *shared: Component, room: int = 0, staged_s: float | None = None
) -> ModelKnown:
    own = Component(name, "denoiser", size)
    return ModelKnown(name, (own, *shared), 10.0, staged_s, room)


def test_the_example_of_an_a100_takes_40_of_80_gb() -> None:
    """The worked example of the warm pool's design."""
    reserves = tuple(
        Reserve(name, size * GB)
        for name, size in (("LoRA", 2), ("ControlNet", 4), ("safety", 4), ("overhead", 6))
    )
    sdxl = known("sdxl", 10 * GB, TEXT, VAE, room=8 * GB)
    ledger = Ledger(80 * GB, reserves, (sdxl,))
    assert {name: count // GB for name, count in ledger.lines().items()} == {
        "base": 10,
        "encoders": 4,
        "vae": 2,
        "latents": 8,
        "LoRA": 2,
        "ControlNet": 4,
        "safety": 4,
        "overhead": 6,
    }
    assert sum(ledger.lines().values()) == 40 * GB
    assert ledger.free_bytes == 40 * GB


def test_what_two_models_share_counts_once_and_goes_with_the_last() -> None:
    one, other = known("one", 10, TEXT, VAE), known("other", 20, TEXT, VAE)
    ledger = Ledger(100 * GB).plus(one)
    assert ledger.needs_bytes(other) == 20, "the encoder and the autoencoder are there"
    both = ledger.plus(other)
    assert both.weights_bytes == 30 + 6 * GB
    assert both.minus("one").weights_bytes == 20 + 6 * GB
    assert both.minus("one", "other").free_bytes == 100 * GB


def test_a_component_that_a_model_has_twice_counts_once() -> None:
    twice = known("m", 10, TEXT, TEXT)
    assert bytes_of(twice) == Ledger(100 * GB).plus(twice).weights_bytes == 10 + 4 * GB


def test_room_is_that_of_the_most_demanding_model() -> None:
    ledger = Ledger(100, (), (known("a", 10, room=20), known("b", 10, room=30)))
    assert ledger.free_bytes == 100 - 20 - 30
    assert ledger.needs_bytes(known("c", 10, room=25)) == 10
    assert ledger.needs_bytes(known("c", 10, room=50)) == 10 + 20
    assert ledger.minus("b").free_bytes == 100 - 10 - 20


def test_the_first_victims_make_room_and_none_too_many() -> None:
    ledger = Ledger(100, (), (known("a", 10), known("b", 30), known("c", 60)))
    assert ledger.plan(known("x", 5), ["a", "b", "c"]) == ("a",)
    assert ledger.plan(known("x", 25), ["a", "b", "c"]) == ("b",), "a alone is too little"
    assert ledger.plan(known("x", 35), ["a", "b", "c"]) == ("a", "b")
    assert ledger.plan(known("x", 101), ["a", "b", "c"]) is None
    assert ledger.plan(known("x", 50), ["a", "b"]) is None
    assert Ledger(100).plan(known("x", 50), []) == ()


PARTS = [Component(f"s{at}", "text_encoder", 5 + at) for at in range(3)]
MODELS = st.builds(
    lambda name, size, shared, room: known(name, size, *(PARTS[at] for at in shared), room=room),
    st.sampled_from("abcdefgh"),
    st.integers(1, 40),
    st.sets(st.integers(0, 2)).map(sorted),
    st.integers(0, 20),
)


@given(
    st.integers(0, 150),
    st.integers(0, 20),
    st.lists(MODELS, unique_by=lambda it: it.model),
    MODELS,
    st.randoms(),
)
def test_a_plan_fits_and_no_victim_of_it_is_spared(
    budget: int, kept: int, held: list[ModelKnown], wanted: ModelKnown, noise: object
) -> None:
    ledger = Ledger(budget, (Reserve("all else", kept),))
    for one in held:
        if one.model != wanted.model and ledger.fits(one):
            ledger = ledger.plus(one)
    by_hand = {part.id: part.bytes for it in held if it.model in ledger for part in it.components}
    assert ledger.weights_bytes == sum(by_hand.values())
    assert sum(ledger.lines().values()) + ledger.free_bytes == budget
    victims = list(ledger.models)
    noise.shuffle(victims)  # type: ignore[attr-defined]
    plan = ledger.plan(wanted, victims)
    if plan is None:
        assert not ledger.minus(*victims).fits(wanted)
        return
    assert set(plan) <= set(victims)
    if ledger.plan(wanted, ()) is not None:
        assert plan == ()
    assert plan == () or ledger.minus(*plan).fits(wanted)
    for spared in plan:
        assert not ledger.minus(*(name for name in plan if name != spared)).fits(wanted)
    if plan:
        after = ledger.minus(*plan).plus(wanted)
        assert after.free_bytes >= 0


# Host memory


def test_a_load_takes_as_long_as_what_is_missing() -> None:
    ledger = Ledger(100, (), (known("a", 10, Component("s", "vae", 30)),))
    wanted = known("b", 10, Component("s", "vae", 30), staged_s=2.0)
    assert Ledger(100).load_s(wanted) == 10.0
    assert ledger.load_s(wanted) == 2.5, "three quarters of it are there"
    host = Ledger(100, (), (wanted,))
    assert Ledger(100).load_s(wanted, host) == 2.0
    assert ledger.load_s(wanted, host) == 0.5


def test_host_memory_keeps_what_is_worth_more() -> None:
    a, b, c = (known(name, size) for name, size in (("a", 40), ("b", 50), ("c", 60)))
    host = Ledger(100, (), (a, b))
    assert staging(host, [c], ["a", "c", "b"])[:2] == ((), ()), "a alone makes too little room"
    kept, dropped, after = staging(host, [c], ["b", "a", "c"])
    assert (kept, dropped, after.models) == (("c",), ("b",), ("a", "c"))
    assert staging(Ledger(10), [c], ["c"])[:2] == ((), ())
