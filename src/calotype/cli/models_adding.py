"""``calotype models add`` and ``pull``: from this disk, and from a hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.catalogues import catalogue_of, not_served
from calotype.cli.console import AsJson, Home, print_json, say

if TYPE_CHECKING:
    from calotype.pool.catalogue import Catalogue
    from calotype.pool.intake import Added

Name = Annotated[str | None, typer.Option(help="To be named by; else as file or folder are.")]
Title = Annotated[str | None, typer.Option(help="For people; else its card's, or its name.")]
KindOption = Annotated[
    str | None,
    typer.Option("--kind", help="Refuse anything but a base, lora, control, vae or classifier."),
]
Config = Annotated[
    str | None,
    typer.Option(help="Of a checkpoint in one file: a model that is here, or a folder like one."),
]
Trigger = Annotated[
    list[str] | None,
    typer.Option(
        "--trigger", help="A word that switches a LoRA on, beside those it says; again for more."
    ),
]


def add(
    path: Annotated[Path, typer.Argument(help="A folder or a .safetensors file.")],
    *,
    name: Name = None,
    kind: KindOption = None,
    title: Title = None,
    licence: Annotated[str | None, typer.Option(help="Its licence, if it says none.")] = None,
    config: Config = None,
    trigger: Trigger = None,
    link: Annotated[
        bool, typer.Option("--link", help="Copy nothing: point at the files where they lie.")
    ] = False,
    hard_link: Annotated[
        bool, typer.Option("--hard-link", help="Copy nothing: share the files, on the same disk.")
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Register a model from this disk: copied whole or not at all, and never changed again."""
    from calotype.pool.intake import Wish, take_in

    if link and hard_link:
        raise typer.BadParameter("--link or --hard-link, not both")
    catalogue = catalogue_of(home, is_quick=True)
    wish = Wish(
        name=name,
        kind=_kind(kind),
        mode="link" if link else "hard-link" if hard_link else "copy",
        title=title,
        licence=licence,
        config=_config(catalogue, config),
        triggers=tuple(trigger or ()),
        judge=_judge(home),
    )
    added = take_in(catalogue.versions, path, wish, taken=catalogue.taken())
    _tell(added, as_json, _missing(home, catalogue, added))


def pull(
    repository: Annotated[str, typer.Argument(help="OWNER/NAME at the hub.", show_default=False)],
    *,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; else main.")] = None,
    file: Annotated[str | None, typer.Option(help="Which .safetensors file of several.")] = None,
    accept_licence: Annotated[
        str | None, typer.Option(help="The licence that you accept, by the name it is shown with.")
    ] = None,
    name: Name = None,
    kind: KindOption = None,
    title: Title = None,
    config: Config = None,
    trigger: Trigger = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Register a model from a hub (HF_ENDPOINT, HF_TOKEN); cut off, it goes on where it was."""
    from calotype.pool import hub
    from calotype.pool.intake import Wish

    catalogue = catalogue_of(home, is_quick=True)
    found = hub.look(repository, revision)
    link = f" ({found.licence_link})" if found.licence_link else ""
    gated = "; it is gated" if found.is_gated else ""
    say(f"{found.name}@{found.commit[:12]}: licence {found.licence}{link}{gated}")
    hub.check_accepted(found, accept_licence)
    wish = Wish(
        name=name,
        kind=_kind(kind),
        title=title,
        is_licence_accepted=True,
        config=_config(catalogue, config),
        triggers=tuple(trigger or ()),
        judge=_judge(home),
    )
    added = hub.pull(
        catalogue.versions, found, wish, file=file, taken=catalogue.taken(), report=say
    )
    _tell(added, as_json, _missing(home, catalogue, added))


def _missing(home: Path | None, catalogue: Catalogue, added: Added) -> list[str]:
    """What a base model lacks before it is served."""
    from calotype.pool.kinds import ModelKind

    if added.record.kind != ModelKind.BASE:
        return []
    catalogue.scan()
    info = catalogue.models.get(f"{added.record.name}@{added.record.version}")
    return not_served(home, [info]).get(info.name, [])


def _judge(home: Path | None) -> Any:
    """What a LoRA's words are held against before it is registered."""
    from calotype.flow.lora_words import check_registrable
    from calotype.settings import Settings

    settings = Settings(home=home)
    return lambda lora: check_registrable(settings, lora)


def _kind(said: str | None) -> Any:
    from calotype.pool.kinds import ModelKind

    if said is None:
        return None
    if said not in [*ModelKind]:
        raise typer.BadParameter(f"{said} is none of {', '.join(ModelKind)}", param_hint="--kind")
    return ModelKind(said)


def _config(catalogue: Catalogue, said: str | None) -> Path | None:
    """The folder of a model that is here, or a folder as it was typed."""
    if said is None:
        return None
    if Path(said).is_dir():
        return Path(said).absolute()
    return Path(catalogue.models.choose(said).info.path)


def _tell(added: Added, as_json: bool, missing: list[str]) -> None:
    record = added.record
    for each in missing:
        say(f"it isn't served yet: {each}")
    for reason in added.triggers.unread:
        say(f"left out of its trigger words: {reason}")
    if as_json:
        told = {"triggers": added.triggers.words}
        print_json({"is_new": added.is_new, **record.model_dump(mode="json"), **told})
        return
    size = sum(it.bytes for it in record.files.values())
    what = f"{record.kind}/{record.name}@{record.version}"
    if not added.is_new:
        print(f"{what} is registered already: the same content")
    else:
        print(f"{what}: {len(record.files)} files, {size / 1e6:.1f} MB")
    if added.triggers.words:
        print(f"trigger words: {', '.join(added.triggers.words)}")
