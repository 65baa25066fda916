"""Policies as data: what a tenant's prompts and pictures may be, by category and threshold.

A policy is TOML; it can extend another. Its version is the number it has and a hash of all that it
says, so a verdict that names it names its every word. What no policy can say is that a minor with
anything sexual is allowed: that isn't a category here but a rule in ``pictures`` and ``prompts``.
"""

from calotype.safety.policies.policy import SHIPPED, Policy, shipped

__all__ = ["SHIPPED", "Policy", "shipped"]
