"""Errors as RFC 9457 problems (``application/problem+json``), whoever raised them.

Knows the error tree's root, and how FastAPI and Starlette report their own findings; adds nothing
to what an error says of itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException

from calotype.core.errors import (
    CallerError,
    CalotypeError,
    InternalError,
    InvalidInput,
    NotFound,
    Unauthorized,
)

UNKNOWN = "unknown_field"  # a finding of ours, in pydantic's list
ERRORS_MAX = 20  # findings told of one request
_NAME_CHARS_MAX = 64  # of an unknown field's name, told back
_BOUNDS = ("ge", "gt", "le", "lt", "max_length", "min_length", "expected")  # in pydantic's context
_WANTED = {  # by the type of pydantic's finding
    "missing": "a value of its own: there is no default",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": "a number",
    "finite_number": "a finite number",
    "model_type": "a JSON object",
    "tuple_type": "a list",
    "bool_type": "true or false",
}


class WrongMethod(CallerError):
    """The address is there, and doesn't take this method."""

    kind = "wrong-method"
    title = "This address doesn't take this method"
    status = 405


class WrongMediaType(CallerError):
    """The body isn't of a type that is taken here."""

    kind = "wrong-media-type"
    title = "The body is of another type than this address takes"
    status = 415


class BodyTooSlow(CallerError):
    """The body didn't come in its time. The connection is closed, or its rest would hold it."""

    kind = "body-too-slow"
    title = "The body took too long to come"
    status = 408


class ProblemResponse(JSONResponse):
    """An error's body, with its status and the headers that HTTP wants beside it."""

    media_type = "application/problem+json"

    def __init__(self, error: CalotypeError, headers: Mapping[str, str] | None = None) -> None:
        headers = dict(headers or {})
        if isinstance(error, Unauthorized):
            headers["WWW-Authenticate"] = 'Bearer realm="calotype"'
        if isinstance(error, BodyTooSlow):
            headers["Connection"] = "close"
        if "retry_after_s" in error.extra:
            headers["Retry-After"] = str(error.extra["retry_after_s"])
        super().__init__(error.problem(), status_code=error.status, headers=headers)


def invalid_input(findings: Sequence[Mapping[str, Any]]) -> InvalidInput:
    """Turn pydantic's findings into one error: the first in front, the first few in ``errors``."""
    errors = [
        {"field": _field(each["loc"]), "detail": _detail(each)} for each in findings[:ERRORS_MAX]
    ]
    return InvalidInput(
        errors[0]["detail"], field=errors[0]["field"], limit=_limit(findings[0]), errors=errors
    )


def unknown_part(name: str, known: Iterable[str]) -> PydanticCustomError:
    """The same of a field within another, whose place pydantic adds."""
    told = name[:_NAME_CHARS_MAX]
    return PydanticCustomError(UNKNOWN, f"there is no field {told}", {"expected": sorted(known)})


def unknown_fields(names: Sequence[str], known: Iterable[str]) -> InvalidInput:
    """Name the fields that there aren't, and those that there are."""
    names = [name[:_NAME_CHARS_MAX] for name in names[:ERRORS_MAX]]
    errors = [{"field": name, "detail": f"there is no field {name}"} for name in names]
    limit = sorted(known)
    return InvalidInput(errors[0]["detail"], field=names[0], limit=limit, errors=errors)


def install_handlers(app: FastAPI) -> None:
    """Make every error the app's routes raise a problem; unexpected ones are ``frame.py``'s."""
    app.add_exception_handler(CalotypeError, _on_calotype_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def _field(location: Sequence[Any]) -> str:
    """E.g. ``loras[0].weight``."""
    parts = [part for part in location if part not in ("body", "query", "path", "header")]
    names = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts]
    return "".join(names).removeprefix(".") or "body"


def _detail(finding: Mapping[str, Any]) -> str:
    field, kind = _field(finding["loc"]), finding["type"]
    if kind == "missing":
        return f"{field} is missing"
    if kind == UNKNOWN:
        return str(finding["msg"])
    if kind in _WANTED:
        return f"{field} has to be {_WANTED[kind]}"
    return f"{field}: {finding['msg']}"


def _limit(finding: Mapping[str, Any]) -> Any:
    """The bound that pydantic names, else what is wanted, else its own words."""
    context = finding.get("ctx", {})
    bounds = [context[bound] for bound in _BOUNDS if bound in context]
    return bounds[0] if bounds else _WANTED.get(finding["type"], str(finding["msg"]))


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
    if isinstance(error.__cause__, CalotypeError):  # FastAPI's word for a body that we cut off
        return _on_calotype_error(request, error.__cause__)
    path, method = request.url.path, request.method
    problem: CalotypeError
    match error.status_code:
        case 404:
            limit = "an address of /openapi.json"
            problem = NotFound(f"there is nothing at {path}", field="path", limit=limit)
        case 405:
            methods = (error.headers or {}).get("allow", "")
            problem = WrongMethod(f"{path} doesn't take {method}", field="method", limit=methods)
        case status if status < 500:
            problem = CallerError(str(error.detail))
        case _:
            problem = InternalError(str(error.detail))
    return ProblemResponse(problem, error.headers)
