"""Why something cannot be done with a session; whoever was asked says it in the manner of the place."""

from __future__ import annotations

from service.errors import FleetwattError
from service.sessions.model import Session


class SessionError(FleetwattError):
    """Base: a stable code, words, the field to blame, and the session in the way, if there is one."""

    def __init__(
        self, code: str, message: str, *, field: str | None = None, other: Session | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.other = other


class BadTimesError(SessionError):
    """No session can have these times."""


class UnknownError(SessionError):
    """There is no such session, or nobody ever heard of the vehicle."""


class ConflictError(SessionError):
    """Another session is in the way, or has the id."""
