"""The error tree, by whose fault it is: the caller's, the operator's, ours.

Each error carries what an RFC 9457 problem needs (a stable ``kind``, a title, a status), and where
it can, the field and the limit. ``api`` turns them into bodies; no other room knows of HTTP beyond
the status number.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CalotypeError(Exception):
    """The root. ``detail`` is a sentence for people; ``extra`` goes into the problem as it is."""

    kind: ClassVar[str] = "internal"  # last part of the problem's type
    title: ClassVar[str] = "Something went wrong"
    status: ClassVar[int] = 500

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,  # the input that is at fault, as the caller wrote it
        limit: Any = None,  # the bound that was passed, or the allowed values
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.limit = limit
        self.extra = extra

    def problem(self) -> dict[str, Any]:
        """The body of an RFC 9457 problem (``application/problem+json``)."""
        body: dict[str, Any] = {
            "type": f"urn:calotype:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.field is not None:
            body["field"] = self.field
        if self.limit is not None:
            body["limit"] = self.limit
        return body | self.extra


# The caller's fault.


class CallerError(CalotypeError):
    """Something in the request; the same request will fail again."""

    kind = "bad-request"
    title = "The request can't be taken"
    status = 400


class InvalidInput(CallerError):
    """A field has a value it may not have."""

    kind = "invalid-input"
    title = "A field has a value it may not have"
    status = 422


class Unauthorized(CallerError):
    """No key, or one that is unknown or revoked."""

    kind = "unauthorized"
    title = "A valid API key is needed"
    status = 401


class Forbidden(CallerError):
    """The key is good, but not for this."""

    kind = "forbidden"
    title = "This key may not do that"
    status = 403


class Suspended(CallerError):
    """The account may not make pictures for a while; ``extra`` has the rule and until when."""

    kind = "suspended"
    title = "The account is suspended"
    status = 403


class NotFound(CallerError):
    """Not there, or not this tenant's: the two look alike on purpose."""

    kind = "not-found"
    title = "There is no such thing"
    status = 404


class BodyTooLarge(CallerError):
    """The request's body is larger than the limit."""

    kind = "body-too-large"
    title = "The request is too large"
    status = 413


class Refused(CallerError):
    """The safety policy refuses the prompt or the picture; ``extra`` has category and check."""

    kind = "refused"
    title = "The content policy refuses this"
    status = 422


class Quarantined(CallerError):
    """Just this was asked before, and ended every engine it met."""

    kind = "quarantined"
    title = "The same job ended its engines before"
    status = 422


class Conflict(CallerError):
    """The thing is in a state that doesn't allow this."""

    kind = "conflict"
    title = "Not possible in this state"
    status = 409


class OnHold(Conflict):
    """It has to be kept for a while, whoever asks for it to be deleted."""

    kind = "on-hold"
    title = "This has to be kept for now"


class KeyInFlight(Conflict):
    """The first request with this idempotency key isn't answered yet."""

    kind = "idempotency-key-in-flight"
    title = "The first request with this key is still under way"


class KeyReused(InvalidInput):
    """The idempotency key was used for a request that asked for something else."""

    kind = "idempotency-key-reused"
    title = "The key was used for another request"


class TooMany(CallerError):
    """A queue or a rate is full; trying later can help."""

    kind = "too-many"
    title = "Too much at once"
    status = 429


# The operator's fault.


class OperatorError(CalotypeError):
    """The installation lacks something or is set up wrongly."""

    kind = "misconfigured"
    title = "The platform isn't set up for this"
    status = 503


class ModelBroken(OperatorError):
    """A model's folder is missing, damaged, or of a family that isn't supported."""

    kind = "model-broken"
    title = "The model can't be loaded"


class NoRoom(OperatorError):
    """A model that no device here has memory for."""

    kind = "no-room"
    title = "No engine has room for the model"


class AdapterBroken(OperatorError):
    """A LoRA's or a ControlNet's file is missing, damaged, or not for this base model."""

    kind = "adapter-broken"
    title = "The adapter can't be used"


class StoreAway(OperatorError):
    """The job database can't be reached at this moment, or may not be written to."""

    kind = "store-away"
    title = "The job database can't be reached"


# Ours.


class InternalError(CalotypeError):
    """A fault of the platform itself."""


class PoisonJob(InternalError):
    """A job ended every engine it met, the last one alone; what it asked for is quarantined."""

    kind = "poison-job"
    title = "The job ends its engines"


class IllegalMove(InternalError):
    """A state machine was asked for a move that its table doesn't have; nothing was changed."""

    kind = "illegal-move"


class LeaseLost(InternalError):
    """A late attempt tried to write after its lease went to another; nothing was changed."""

    kind = "lease-lost"
