"""A hub's refusals, and a full disk, in words for whoever pulls."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calotype.core.errors import InvalidInput, OperatorError


def endpoint_now() -> str:
    """The address of the hub."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Raise huggingface_hub's errors as ours: InvalidInput, or OperatorError."""
    import httpx2
    from huggingface_hub import errors

    place = endpoint_now()
    try:
        yield
    except errors.HFValidationError as error:
        raise InvalidInput(
            f"{name[:100]!r} is no repository: it would be OWNER/NAME", field="repository"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise OperatorError(
            f"{name} can't be pulled: HF_HUB_OFFLINE says to stay offline", field="HF_HUB_OFFLINE"
        ) from error
    except errors.GatedRepoError as error:
        raise OperatorError(
            f"{name} is gated: accept its terms at {place}/{name} with your account there, make a"
            " token that may read it, and set HF_TOKEN to that",
            field="HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise OperatorError(f"{name} has no such revision", field="revision") from error
    except errors.RepositoryNotFoundError as error:
        raise OperatorError(
            f"{place} has no {name}, or it is private and HF_TOKEN is no token that may read it",
            field="repository",
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise OperatorError(f"{place} answers {status} for {name}", field="repository") from error
    except httpx2.HTTPError as error:
        raise OperatorError(
            f"{place} can't be reached ({type(error).__name__}); what was"
            " fetched is kept, and the same command goes on with it",
            field="HF_ENDPOINT",
        ) from error
    except (ValueError, KeyError, TypeError) as error:  # not what the hub's API says
        raise OperatorError(
            f"{place} doesn't answer as a hub does: {type(error).__name__}", field="HF_ENDPOINT"
        ) from error


def disk_error(error: OSError, folder: Path) -> OperatorError:
    """What is told when files can't be written there."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OperatorError(
            f"the disk of {folder} is full: what was fetched is kept, and the same command goes on"
            " with it",
            field="disk",
            limit=error.strerror,
        )
    return OperatorError(f"{error.strerror or error}", field="repository")
