"""Looks up what an ask names: its parent, its adapters, its pictures. Only the tenant's own."""

from __future__ import annotations

from calotype.core import limits
from calotype.core.errors import InvalidInput, NotFound
from calotype.core.kinds import Kind
from calotype.core.nouns import AdapterKind, Ask, InputPicture
from calotype.flow.admit import Found
from calotype.flow.begin import Parent, kind_of, pictures_named, taken_over
from calotype.flow.checks import check_count
from calotype.flow.pictures import InputPictures
from calotype.jobs.store import JobStore
from calotype.pool.adapters import AdapterRegistry


class Lookup:
    """Finds, or refuses under the name of the field."""

    def __init__(self, store: JobStore, pictures: InputPictures, adapters: AdapterRegistry) -> None:
        self._store, self._pictures, self._adapters = store, pictures, adapters

    async def found(
        self, tenant: str, ask: Ask, job_id: str = "", *, pool: str = ""
    ) -> tuple[Ask, Found]:
        """The ask with what it takes over from its parent, and all it names.

        Of adapters it may be given a canary, by the id that its job will have. ``pool`` is where
        that will be made: nothing that another pool made is taken there.

        Raises InvalidInput naming the field. Pictures that were sent count as used from now.
        """
        kind = kind_of(ask)
        parent = None
        if ask.parent is not None:
            ask, parent = await self._parent(tenant, ask, kind, pool)
        check_count("loras", len(ask.loras or ()), limits.LORAS_PER_JOB_MAX)
        check_count("controls", len(ask.controls), limits.CONTROLS_PER_JOB_MAX)
        found = Found(
            kind=kind,
            loras=tuple(
                self._adapters.get(
                    AdapterKind.LORA, use.name, field=f"loras[{at}].name", job_id=job_id
                )
                for at, use in enumerate(ask.loras or ())
            ),
            controls=tuple(
                self._adapters.get(
                    AdapterKind.CONTROL, use.name, field=f"controls[{at}].name", job_id=job_id
                )
                for at, use in enumerate(ask.controls)
            ),
            pictures={
                picture_id: await self._picture(tenant, field, picture_id, pool)
                for field, picture_id in pictures_named(ask).items()
            },
            parent=parent,
        )
        if sent := [each for each, picture in found.pictures.items() if picture.bytes]:
            await self._store.pictures.use(sent)
        return ask, found

    async def _parent(
        self, tenant: str, ask: Ask, kind: Kind, pool: str
    ) -> tuple[Ask, InputPicture]:
        assert ask.parent is not None
        try:
            image, job = await self._store.pictures.image(ask.parent, tenant=tenant)
            picture = await self._pictures.find(tenant, ask.parent, pool=pool)
        except NotFound as error:
            raise InvalidInput(error.detail, field="parent", limit=error.limit) from error
        return taken_over(ask, kind, Parent(image, job.spec)), picture

    async def _picture(self, tenant: str, field: str, picture_id: str, pool: str) -> InputPicture:
        try:
            return await self._pictures.find(tenant, picture_id, pool=pool)
        except NotFound as error:
            raise InvalidInput(error.detail, field=field, limit=error.limit) from error
