"""``calotype models alias``, ``promote``, ``rollback``, ``canary``, ``pin`` and ``remove``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.catalogues import Reference, catalogue_of
from calotype.cli.console import AsJson, Home, print_json

if TYPE_CHECKING:
    from calotype.pool.aliases import State
    from calotype.pool.catalogue import Catalogue, Named

AliasReference = Annotated[
    str, typer.Argument(help="NAME@ALIAS; NAME alone is NAME@stable.", show_default=False)
]
Version = Annotated[str, typer.Argument(help="A version, or its first digits.")]


def alias(
    reference: AliasReference,
    version: Annotated[str | None, typer.Argument(help="A version, or its first digits.")] = None,
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Forget the alias.")] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Make a word stand for a version: jobs can then name NAME@ALIAS."""
    from calotype.core.references import check_alias

    if delete == (version is not None):
        raise typer.BadParameter("a VERSION, or --delete")
    catalogue, named = _named_alias(reference, home, is_new=not delete)

    def change(state: State) -> None:
        if delete:
            state.drop_alias(named.kind, named.name, named.word)
        else:
            check_alias(named.word)
            target = _version(catalogue, named, version or "")
            state.point(named.kind, named.name, named.word, target, "set")

    _change(catalogue, named, change, home, as_json=as_json)


def promote(
    reference: AliasReference,
    version: Annotated[
        str | None, typer.Argument(help="A version, or its first digits; none: the canary.")
    ] = None,
    *,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Let an alias stand for another version from now on; `rollback` goes back.

    A server that runs goes by it within seconds; of a check of pictures or prompts each engine
    proves the version first (`safety checks` says how that went).
    """
    from calotype.core.errors import InvalidInput

    catalogue, named = _named_alias(reference, home)

    def change(state: State) -> None:
        known = state.alias(named.kind, named.name, named.word)
        if version is None and known.canary is None:
            raise InvalidInput(
                f"{named.name}@{named.word} has no canary: say which version",
                field="version",
                limit=catalogue.versions.versions(named.kind, named.name),
            )
        canary = known.canary.version if known.canary is not None else ""
        target = canary if version is None else _version(catalogue, named, version)
        state.point(named.kind, named.name, named.word, target, "promoted")

    _change(catalogue, named, change, home, as_json=as_json)


def rollback(reference: AliasReference, *, as_json: AsJson = False, home: Home = None) -> None:
    """Let an alias stand for what it stood for before; a canary of it ends."""
    catalogue, named = _named_alias(reference, home)
    _change(
        catalogue,
        named,
        lambda state: state.roll_back(named.kind, named.name, named.word),
        home,
        as_json=as_json,
    )


def canary(
    reference: AliasReference,
    version: Annotated[str | None, typer.Argument(help="A version, or its first digits.")] = None,
    *,
    share: Annotated[float, typer.Option(help="Of the jobs, 0 to 1; 0 ends it.")] = 0.05,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Give a share of an alias's jobs another version, chosen by the jobs' ids."""
    if share and version is None:
        raise typer.BadParameter("a VERSION, or --share 0 to end it")
    catalogue, named = _named_alias(reference, home)

    def change(state: State) -> None:
        target = _version(catalogue, named, version) if version is not None else ""
        state.try_out(named.kind, named.name, named.word, target, share)

    _change(catalogue, named, change, home, as_json=as_json)


def pin(reference: Reference, *, as_json: AsJson = False, home: Home = None) -> None:
    """Keep a version warm always, as far as devices have room; it can't be removed then."""
    _pin(reference, as_json, home, is_pinned=True)


def unpin(reference: Reference, *, as_json: AsJson = False, home: Home = None) -> None:
    """End a pin."""
    _pin(reference, as_json, home, is_pinned=False)


def remove(
    reference: Reference,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also where aliases or a pin stand for it.")
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Take a registered version out. Folders outside the registry are yours to remove."""
    from calotype.core.errors import InvalidInput

    catalogue = catalogue_of(home, is_quick=True)
    named = catalogue.find(reference)
    if not named.version:
        raise InvalidInput(
            f"{reference} was not registered: it is a folder, and yours to remove",
            field="reference",
            limit="what calotype models add or pull took in",
        )
    catalogue.versions.remove(named.kind, named.name, named.version, is_forced=force)
    what = f"{named.kind}/{named.name}@{named.version}"
    if as_json:
        print_json({"removed": what})
    else:
        print(f"{what} is removed")


def _pin(reference: str, as_json: bool, home: Any, *, is_pinned: bool) -> None:
    from calotype.pool.catalogue import own_name

    catalogue = catalogue_of(home, is_quick=True)
    named = catalogue.find(reference)
    own = f"{named.kind}/{own_name(named)}"

    def change(state: State) -> None:
        others = [it for it in state.pinned if it != own]
        state.pinned = [*others, own] if is_pinned else others

    _change(catalogue, named, change, home, as_json=as_json)


def _named_alias(reference: str, home: Any, *, is_new: bool = False) -> tuple[Catalogue, Named]:
    from dataclasses import replace

    from calotype.core.errors import InvalidInput
    from calotype.core.references import reference as read

    catalogue = catalogue_of(home, is_quick=True)
    asked = read(reference)
    named = catalogue.find(asked.name if is_new else reference)
    if not catalogue.versions.versions(named.kind, named.name):
        raise InvalidInput(
            f"{named.name} is a folder and has no versions: calotype models add it, to have some",
            field="reference",
            limit="what calotype models add or pull took in",
        )
    return catalogue, replace(named, word=asked.at or named.word)


def _version(catalogue: Catalogue, named: Named, said: str) -> str:
    """The version that its first digits mean, or an alias; it has to be one that can be used."""
    own = catalogue.shelf(named.kind).choose(f"{named.name}@{said}", field="version").info.name
    return str(own.partition("@")[2])


def _change(catalogue: Catalogue, named: Named, change: Any, home: Any, *, as_json: bool) -> None:
    """Change aliases and pins, and tell what they are now."""
    from calotype.flow.registered import check_promotion
    from calotype.pool.aliases import changing
    from calotype.pool.kinds import ModelKind
    from calotype.settings import Settings

    with changing(catalogue.versions.root) as state:
        before = {word: it.version for word, it in state.of(named.kind, named.name).items()}
        change(state)
        after = {word: it.version for word, it in state.of(named.kind, named.name).items()}
        if named.kind is ModelKind.CLASSIFIER:
            check_promotion(Settings(home=home), named.name, before, after)
        aliases = {word: it.model_dump() for word, it in state.of(named.kind, named.name).items()}
        pinned = [it for it in state.pinned if it.startswith(f"{named.kind}/{named.name}")]
    if as_json:
        print_json({"kind": named.kind, "name": named.name, "aliases": aliases, "pinned": pinned})
        return
    for word, it in aliases.items():
        trial = it["canary"]
        tried = f", {100 * trial['share']:g} % try {trial['version']}" if trial else ""
        print(f"{named.name}@{word} is {it['version']}{tried}")
    for own in pinned:
        print(f"{own} is pinned")
