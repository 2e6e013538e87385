"""How every route answers: JSON bytes, and moments in UTC with a Z."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import MediaType, Response


def answer(body: Any, status: int = 200) -> Response[bytes]:
    """Answer with JSON."""
    return Response(content=msgspec.json.encode(body), status_code=status, media_type=MediaType.JSON)


def rfc3339(moment: datetime | None) -> str | None:
    """Write a moment as UTC with a Z."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
