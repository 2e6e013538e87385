"""What schemathesis does not know by itself: how a body of lines is sent."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def as_lines(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Send text as it is, and whatever else was made up as JSON."""
    return (value if isinstance(value, str) else json.dumps(value)).encode(errors="replace")
