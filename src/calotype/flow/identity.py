"""Whose name pictures are signed in: the operator's, or a development chain made here.

Also who counts as us when a picture is looked at: whoever signs now, and whoever did before.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from calotype.core.errors import OperatorError
from calotype.provenance import certificates
from calotype.provenance.certificates import CHAIN_FILE, SigningIdentity
from calotype.settings import Settings


def identity_of(settings: Settings) -> SigningIdentity:
    """The identity that the settings name. Raises OperatorError if it can't be used."""
    now, chain = datetime.now(UTC), settings.certificate_chain
    key, command = settings.certificate_key, settings.certificate_command
    if key is not None and command is not None:
        raise OperatorError(
            "certificate_key and certificate_command can't both sign", field="certificate_command"
        )
    if (chain is None) != (key is None and command is None):
        missing = "certificate_chain" if chain is None else "certificate_key"
        raise OperatorError(f"setting {missing} is needed beside the other", field=missing)
    if chain is None:
        made = certificates.ensure_development(_folder(settings), now=now)
    elif command is not None:
        made = certificates.load_with_command(chain, shlex.split(command), now=now)
    else:
        assert key is not None, "looked at above"
        made = certificates.load(chain, key, now=now)
    made = certificates.with_former(made, _former(settings))
    return replace(made, timestamp_url=settings.timestamp_url)


def trust_of(settings: Settings) -> tuple[str | None, tuple[str, ...] | None]:
    """The roots (PEM) and the certificates' numbers by which a picture is ours.

    None of both where there is no chain yet. Needs no key. Raises OperatorError.
    """
    own = settings.certificate_chain or _folder(settings) / CHAIN_FILE
    chains = [each for each in (own, *_former(settings)) if each.exists()]
    return certificates.trust(chains) if chains else (None, None)


def _folder(settings: Settings) -> Path:
    return settings.secrets_folder / "certificates"


def _former(settings: Settings) -> list[Path]:
    """Chains that signed before, newest first: those put aside, and those the operator names."""
    aside = [each / CHAIN_FILE for each in certificates.former(_folder(settings))]
    named = settings.certificates_former
    return aside + (sorted(named.glob("*.pem")) if named is not None else [])
