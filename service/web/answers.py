"""How every route answers: JSON bytes, and moments in UTC with a Z."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
from litestar import MediaType, Response

Row = TypeVar("Row")
DECIMALS: Final = 6


def answer(body: Any, status: int = 200) -> Response[bytes]:
    """Answer with JSON."""
    return Response(content=msgspec.json.encode(body), status_code=status, media_type=MediaType.JSON)


def rounded(value: float | None) -> float | None:
    """Round a figure for an answer: 6 decimals, a thousandth of a watt hour."""
    return None if value is None else round(float(value), DECIMALS)


def cut_page(rows: list[Row], size: int) -> tuple[list[Row], Row | None]:
    """Give a page of rows that were asked for with one more, and its last row if there is a page after it."""
    return rows[:size], rows[size - 1] if len(rows) > size else None


def rfc3339(moment: datetime | None) -> str | None:
    """Write a moment as UTC with a Z."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
