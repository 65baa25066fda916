"""What a job's rows are made from beside their text: adapters by their files, pictures as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

from calotype.core.errors import InvalidInput
from calotype.core.kinds import UPSCALES
from calotype.core.messages import RowControl, RowLora, RowPicture, RunRow
from calotype.core.nouns import AdapterInfo, AdapterKind, Job, Spec
from calotype.flow.finish import Brought
from calotype.flow.pictures import InputPictures
from calotype.pool.adapters import AdapterRegistry
from calotype.provenance.manifest import MadeControl, MadeLora, MadeWith


@dataclass(frozen=True)
class Ingredients:
    """The same for all rows of a job. ``blob`` holds the pictures' bytes, one after the other."""

    loras: tuple[RowLora, ...] = ()
    controls: tuple[RowControl, ...] = ()
    pictures: tuple[RowPicture, ...] = ()
    source: int | None = None  # which of the pictures
    mask: int | None = None
    blob: bytes = b""
    hashes: Mapping[str, str] = field(default_factory=dict)  # of pixels, by picture id
    archives: tuple[bytes, ...] = ()  # of the pictures, as provenance.ingredients keeps them

    def row(
        self,
        name: str,
        job: Job,
        index: int,
        *,
        is_coarse: bool = False,
        parked_bytes: int = 0,
        refused_from: Mapping[str, float] = MappingProxyType({}),
    ) -> RunRow:
        """The row of the job's image ``index`` (0..n-1), under this name; the rest is RunRow's."""
        spec = job.spec
        return RunRow(
            row=name,
            model=spec.model,
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
            width=spec.width,
            height=spec.height,
            steps=spec.steps,
            guidance=spec.guidance,
            sampler=spec.sampler,
            seed=spec.image_seed(index),
            tier=job.tier,
            loras=self.loras,
            controls=self.controls,
            pictures=self.pictures,
            source=self.source,
            mask=self.mask,
            strength=spec.strength,
            keeps_colours=spec.kind in UPSCALES,
            is_coarse=is_coarse,
            parked_bytes=parked_bytes,
            refused_from=dict(refused_from),
        )

    def made_with(self, spec: Spec) -> MadeWith:
        """The same, for the manifest."""
        return MadeWith(
            source_sha256=self.hashes.get(spec.source or ""),
            mask_sha256=self.hashes.get(spec.mask or ""),
            loras=tuple(MadeLora(each.name, each.build, each.weight) for each in self.loras),
            controls=tuple(
                MadeControl(
                    name=each.name,
                    build=each.build,
                    picture_sha256=self.hashes[use.picture],
                    weight=each.weight,
                    start=each.start,
                    end=each.end,
                    canny=each.canny,
                )
                for each, use in zip(self.controls, spec.controls, strict=True)
            ),
        )


class Larder:
    """Where ingredients are gathered from."""

    def __init__(self, adapters: AdapterRegistry, pictures: InputPictures) -> None:
        self._adapters, self._pictures = adapters, pictures

    async def gather(self, spec: Spec) -> Ingredients:
        """All that a job's rows need.

        Raises InvalidInput (an adapter is gone), NotFound (a picture is), Refused (one is known to
        be blocked by now), or what ``Finisher.bring`` raises.
        """
        wanted = _wanted(spec)
        places = {each: at for at, each in enumerate(wanted)}
        size = (spec.width, spec.height)
        brought = [await self._pictures.bring(name, *size, of) for name, of in wanted]
        return Ingredients(
            loras=tuple(
                RowLora(use.name, info.path, info.build, use.weight)
                for use in spec.loras
                for info in (self._adapter(AdapterKind.LORA, use.name),)
            ),
            controls=tuple(
                RowControl(
                    name=use.name,
                    path=info.path,
                    build=info.build,
                    picture=places[use.picture, 3],
                    weight=use.weight,
                    start=use.start,
                    end=use.end,
                    canny=bool(use.canny),
                )
                for use in spec.controls
                for info in (self._adapter(AdapterKind.CONTROL, use.name),)
            ),
            pictures=tuple(RowPicture(*size, channels) for _, channels in wanted),
            source=places[spec.source, 3] if spec.source else None,
            mask=places[spec.mask, 1] if spec.mask else None,
            blob=b"".join(each.raw for each in brought),
            hashes={
                name: each.pixels_sha256 for (name, _), each in zip(wanted, brought, strict=True)
            },
            archives=_archives(wanted, brought),
        )

    def named(self, spec: Spec) -> list[AdapterInfo]:
        """The adapters of a job, but for those that are gone: it will be told when it starts."""
        wanted = [(AdapterKind.LORA, use.name) for use in spec.loras]
        wanted += [(AdapterKind.CONTROL, use.name) for use in spec.controls]
        found = []
        for kind, name in dict.fromkeys(wanted):
            with suppress(InvalidInput):
                found.append(self._adapter(kind, name))
        return found

    def _adapter(self, kind: AdapterKind, name: str) -> AdapterInfo:
        field_name = "loras" if kind is AdapterKind.LORA else "controls"
        return self._adapters.get(kind, name, field=field_name)


def _archives(wanted: Sequence[tuple[str, int]], brought: Sequence[Brought]) -> tuple[bytes, ...]:
    """One of each picture, however often it is used."""
    found = {name: each.ingredient for (name, _), each in zip(wanted, brought, strict=True)}
    return tuple(each for each in found.values() if each is not None)


def _wanted(spec: Spec) -> list[tuple[str, int]]:
    """Ids of its pictures, each with the channels that are wanted of it; each pair once."""
    colour = [spec.source, *(use.picture for use in spec.controls)]
    wanted = [(each, 3) for each in colour if each] + ([(spec.mask, 1)] if spec.mask else [])
    return list(dict.fromkeys(wanted))
