"""Readings as bytes, and what decoding says of a payload that is not good."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from service.ingest.decode import decode
from service.ingest.outcome import Decoded, Rejection
from tests.support.strategies import RULE, meter, vehicle

GOOD_METER: Final = msgspec.json.encode(meter())
GOOD_VEHICLE: Final = msgspec.json.encode(vehicle())


def refused(body: bytes | dict[str, Any], **options: Any) -> Rejection:
    """Decode what must give one refusal and nothing else."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    result = decode(raw, RULE, **options)
    assert result.readings == []
    assert result.indices == []
    [rejection] = result.rejections
    return rejection


def codes(result: Decoded) -> list[tuple[int, str, str | None]]:
    """Give the refusals of a payload: place, code and field."""
    return [(rejection.index, rejection.code, rejection.field) for rejection in result.rejections]
