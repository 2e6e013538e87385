"""Why a line is not a reading."""

from __future__ import annotations

from typing import NamedTuple


class CellError(Exception):
    """Raised for a cell that is refused: the reading's field, a stable code, a message for people."""

    def __init__(self, field: str | None, code: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.code = code
        self.message = message


class Refusal(NamedTuple):
    """A refused line. `field` has its name in JSON; `device_id` is set where the line gives a valid one."""

    field: str | None
    code: str
    message: str
    device_id: str | None = None
