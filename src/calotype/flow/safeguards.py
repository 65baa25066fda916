"""An installation's safety, wired: read at the start, used by all who judge.

Which policy applies to whom, the prompt check by each, the lists of known pictures, and whether a
model may be served: one that can draw anything isn't until its pictures are looked at by checks
that find what its policies need found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from calotype.core.errors import ModelBroken
from calotype.core.nouns import AdapterInfo, Job, ModelInfo, Spec
from calotype.flow.ages import Ages
from calotype.flow.pools import PoolMissing
from calotype.flow.registered import registered
from calotype.safety.ages import provider_of
from calotype.safety.configuration import DEFAULT
from calotype.safety.pictures import PictureCheck
from calotype.safety.policies import Policy
from calotype.safety.prompts import PromptCheck
from calotype.safety.setup import SafetySetup
from calotype.settings import Settings


def setup_of(settings: Settings) -> SafetySetup:
    """What safety.toml says, with what the registry of models has; raises OperatorError."""
    return SafetySetup.from_file(settings.safety_path, registered(settings.models_folder))


def prompt_check(settings: Settings) -> PromptCheck:
    """The check of prompts with the operator's list of words; raises OperatorError."""
    terms = settings.blocklist
    return PromptCheck.from_file(terms) if terms else PromptCheck.default()


class Safeguards:
    """Made of settings; raises OperatorError for what is wrong in any of their files."""

    def __init__(self, settings: Settings) -> None:
        self.setup = setup_of(settings)
        self.lists = settings.hash_lists
        PictureCheck.from_files(self.lists, self.setup)  # or each picture would find what is wrong
        self.ages = Ages(provider_of(self.setup.age) if self.setup.age else None)
        check = prompt_check(settings)
        self._adapters_of: Callable[[Spec], Sequence[AdapterInfo]] = lambda _: ()
        self._check = check
        self._prompts = {each.version: check.under(each) for each in self.setup.in_force()}

    def adopt(self, setup: SafetySetup) -> tuple[str, ...]:
        """Go by this from the next request and picture on; if who has which policy, or what one
        says, has changed, the versions in force now."""
        before, in_force = self.setup, setup.in_force()
        self._prompts = {each.version: self._check.under(each) for each in in_force}
        self.setup = setup
        parts = ("policies", "default", "tenants", "adults")
        if all(getattr(before, part) == getattr(setup, part) for part in parts):
            return ()
        return tuple(dict.fromkeys(each.version for each in in_force))

    def policy(self, tenant: str, user: str = "") -> Policy:
        """The policy by which a person's prompts and pictures are judged."""
        return self.setup.policy(tenant, user, is_adult=self.ages.is_adult(tenant, user))

    async def learn_age(self, tenant: str, user: str) -> None:
        """Ask whether a person is of age, if their policy is only for those who are."""
        if self.setup.policy(tenant, user, is_adult=True).adults_only:
            await self.ages.learn(tenant, user)

    def policy_of(self, job: Job) -> Policy:
        """The policy by which a job's pictures are judged.

        One for adults only doesn't reach a job that names a minor: its pictures are judged as
        everybody's are, though its words were harmless. Nor does a policy with a pool reach a job
        that isn't made there, as of somebody who was of age only later. Raises SafetyUnavailable.
        """
        policy = self.policy(job.tenant, job.user)
        if policy.pool and policy.pool != job.spec.pool:
            return self.setup.policies[DEFAULT]
        if policy.adults_only and self._names_minor(job):
            return self.setup.policies[DEFAULT]
        return policy

    def pool(self, tenant: str, user: str = "") -> str:
        """Where a person's jobs are made and kept; "" if that is where everybody's are.

        Raises PoolMissing if nothing is set apart for their policy: what needs a pool of its own
        is made nowhere else.
        """
        policy = self.policy(tenant, user)
        if policy.pool and policy.pool not in self.setup.pools:
            raise PoolMissing(policy.pool)
        return policy.pool

    def may_see(self, tenant: str, user: str, pool: str) -> bool:
        """Whether a person may be shown what a pool's jobs have made."""
        return pool in ("", self.policy(tenant, user).pool)

    def _names_minor(self, job: Job) -> bool:
        texts = {"prompt": job.spec.prompt, "loras": ", ".join(it.name for it in job.spec.loras)}
        beside = [word for each in self._adapters_of(job.spec) for word in each.triggers]
        return self.prompts(job.tenant, job.user).names_minor(texts, beside)

    def know(self, adapters_of: Callable[[Spec], Sequence[AdapterInfo]]) -> None:
        """Have it know the adapters of jobs, whose words are read with the jobs' own."""
        self._adapters_of = adapters_of

    def prompts(self, tenant: str, user: str = "") -> PromptCheck:
        """The prompt check by that policy."""
        return self._prompts[self.policy(tenant, user).version]

    def equipped(self, model: ModelInfo) -> ModelInfo:
        """The model with the checks that its pictures have to pass, as they are in force."""
        uses, trials = self.setup.uses(model.domain, model.name), self.setup.trials
        return replace(model, checks=uses, trials=trials)

    def why_not_served(self, model: ModelInfo) -> str:
        """What stands between a model and being served, in words; empty if nothing does."""
        return "; ".join(self.setup.missing(model.domain))

    def check_served(self, model: ModelInfo) -> None:
        """Raise ModelBroken for a model whose pictures nobody could judge."""
        if reason := self.why_not_served(model):
            raise ModelBroken(f"{model.name} isn't served: {reason}", field="model")
