"""Errors as RFC 9457 problems (``application/problem+json``), whoever raised them.

Knows the error tree's root, and how FastAPI and Starlette report their own findings; adds nothing
to what an error says of itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from calotype.core.errors import (
    CallerError,
    CalotypeError,
    InternalError,
    InvalidInput,
    NotFound,
    Unauthorized,
)

_BOUNDS = ("ge", "gt", "le", "lt", "max_length", "min_length", "expected")  # in pydantic's context


class WrongMethod(CallerError):
    """The address is there, and doesn't take this method."""

    kind = "wrong-method"
    title = "This address doesn't take this method"
    status = 405


class WrongMediaType(CallerError):
    """The body isn't of a type that is taken here."""

    kind = "wrong-media-type"
    title = "The body has to be JSON"
    status = 415


class ProblemResponse(JSONResponse):
    """An error's body, with its status and the headers that HTTP wants beside it."""

    media_type = "application/problem+json"

    def __init__(self, error: CalotypeError, headers: Mapping[str, str] | None = None) -> None:
        headers = dict(headers or {})
        if isinstance(error, Unauthorized):
            headers["WWW-Authenticate"] = 'Bearer realm="calotype"'
        super().__init__(error.problem(), status_code=error.status, headers=headers)


def invalid_input(findings: Sequence[Mapping[str, Any]]) -> InvalidInput:
    """Turn pydantic's findings into one error: the first in front, all of them in ``errors``."""
    errors = [{"field": _field(each["loc"]), "detail": str(each["msg"])} for each in findings]
    context = findings[0].get("ctx", {})
    bounds = [context[bound] for bound in _BOUNDS if bound in context]
    return InvalidInput(
        f"{errors[0]['field']}: {errors[0]['detail']}",
        field=errors[0]["field"],
        limit=bounds[0] if bounds else None,
        errors=errors,
    )


def install_handlers(app: FastAPI) -> None:
    """Make every error the app's routes raise a problem; unexpected ones are ``frame.py``'s."""
    app.add_exception_handler(CalotypeError, _on_calotype_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def _field(location: Sequence[Any]) -> str:
    names = [str(part) for part in location if part not in ("body", "query", "path", "header")]
    return ".".join(names) or "body"


def _on_calotype_error(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, CalotypeError)
    if error.status == 500:
        raise error  # ours: logged with an id, and nothing of it told
    return ProblemResponse(error)


def _on_validation_error(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    return ProblemResponse(invalid_input(error.errors()))


def _on_http_exception(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    problem: CalotypeError
    match error.status_code:
        case 404:
            problem = NotFound(f"there is nothing at {path}")
        case 405:
            problem = WrongMethod(f"{path} doesn't take {method}")
        case status if status < 500:
            problem = CallerError(str(error.detail))
        case _:
            problem = InternalError(str(error.detail))
    return ProblemResponse(problem, error.headers)
