"""Where what an engine drew becomes a picture: judged, signed, stored and told of, or withheld."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from calotype import __version__
from calotype.core.errors import InternalError
from calotype.core.hash_log import LogEntry
from calotype.core.ids import new_id
from calotype.core.messages import RowDone
from calotype.core.nouns import Image, ImageFile, Job, Lease, ModelInfo, VerdictKind
from calotype.core.reviews import Withheld
from calotype.delivery.names import stored_name
from calotype.flow.finish import Finished, Raw
from calotype.flow.ingredients import Ingredients
from calotype.flow.tools import Tools
from calotype.jobs.patience import patiently
from calotype.provenance.manifest import Manifest


@dataclass(frozen=True)
class Machine:
    """What made a picture, for its manifest."""

    torch: str  # version
    device: str


@dataclass(frozen=True)
class Picture:
    """One judged picture of the attempt: one that may be delivered, or one that may not."""

    index: int
    image: Image | None
    withheld: Withheld | None = None


@dataclass
class Darkroom:
    """Finishes the pictures of one attempt."""

    job: Job
    lease: Lease
    model: ModelInfo
    machine: Machine
    tools: Tools
    stored: list[str] = field(default_factory=list)  # names of files that may be there
    logged: list[LogEntry] = field(default_factory=list)  # of images that may be delivered

    async def finish(
        self, index: int, done: RowDone, pixels: bytes, ingredients: Ingredients
    ) -> Picture:
        """Have one judged, encoded and signed; raises what ``Finisher.finish`` does."""
        image_id = new_id("img")
        manifest = Manifest.of(
            self.job.spec,
            self.model,
            image=image_id,
            index=index,
            calotype=__version__,
            torch=self.machine.torch,
            device=self.machine.device,
            pixels_sha256="",
            made_with=ingredients.made_with(self.job.spec),
        )
        answered = self.model.checks, done.builds, done.unchecked
        uses, unchecked = self.tools.versions.builds.judged(*answered)
        raw = Raw(
            pixels,
            done.width,
            done.height,
            done.scores,
            manifest,
            uses=uses,
            unchecked=unchecked,
            degraded=done.degraded,
            policy=self.tools.policy_of(self.job),
            pool=self.job.spec.pool,
            ingredients=ingredients.archives,
        )
        finished = await self.tools.finisher.finish(raw)
        verdict = finished.verdict
        data: dict[str, object] = {"image": index, "id": image_id, "verdict": verdict.kind.value}
        data |= {"check": verdict.check, "version": verdict.version, "policy": verdict.policy}
        if verdict.kind is VerdictKind.ALLOW:
            image = await self._store(image_id, index, done, finished)
            await self.tell("image_finished", data)
            return Picture(index, image)
        withheld = await self.tools.people.withhold(self.job, index, raw, finished)
        # First, so that whoever is told of the refusal finds no preview any more.
        await patiently(lambda: self._withhold(index, finished))
        data |= {"category": verdict.category, "detail": verdict.detail}
        await self.tell("image_finished", data)
        return Picture(index, None, withheld)

    async def _withhold(self, index: int, finished: Finished) -> None:
        digest, verdict = finished.pixels_sha256, finished.verdict
        await self.tools.store.withhold(self.lease, index, digest, verdict)

    async def tell(self, kind: str, data: dict[str, object]) -> None:
        """Write it into the job's log."""
        await patiently(lambda: self.tools.store.append(self.lease, kind, data))

    async def _store(self, image_id: str, index: int, done: RowDone, finished: Finished) -> Image:
        if finished.entry is None:
            raise InternalError("a picture that isn't marked can't be delivered")
        entry = finished.entry
        self.logged.append(entry)
        # Before its files: by it the sweep knows those that a kill left for ours.
        await patiently(lambda: self.tools.store.hash_log.append([entry]))
        files = [self._file(image_id, form, data) for form, data in finished.files.items()]
        for file in files:
            self.stored.append(file.name)
            await self.tools.pictures.put(file.name, finished.files[file.form])
        return Image(
            id=image_id,
            index=index,
            seed=self.job.spec.image_seed(index),
            width=done.width,
            height=done.height,
            sha256=hashlib.sha256(finished.files["png"]).hexdigest(),
            pixels_sha256=finished.pixels_sha256,
            formats=tuple(finished.files),
            verdict=finished.verdict,
            files=tuple(files),
        )

    def _file(self, image_id: str, form: str, data: bytes) -> ImageFile:
        sha256 = hashlib.sha256(data).hexdigest()
        spec, tier = self.job.spec, self.job.tier.value
        name = stored_name(tier, image_id, sha256, form, pool=spec.pool)
        return ImageFile(form, 0, name, sha256, len(data))
