"""What letters can be asked for by, read from words: parameters of a request, options of a command."""

from __future__ import annotations

import re
from typing import Any, Final

from service.dead_letters.letter import Filters
from service.web import parameters
from service.web.problems import Problem

KINDS: Final = {"meter": "meter", "vehicle": "vehicle"}
# What waits for somebody to do something about it; what a replay stored or somebody dismissed; or both.
STATES: Final = {"waiting": False, "resolved": True, "all": None}
_CODE: Final = re.compile(r"[a-z_]{1,64}")
_ID: Final = re.compile(r"[0-9]{1,16}")
_ORIGIN_MAX: Final = 1000
# As far as every reader of JSON can count.
ID_MAX: Final = 2**53


def filters(
    *,
    kind: str | None = None,
    device_id: str | None = None,
    code: str | None = None,
    origin: str | None = None,
    from_: str | None = None,
    to: str | None = None,
) -> Filters:
    """Read filters. Raises Problem 400 that names the parameter."""
    if code is not None and not _CODE.fullmatch(code):
        raise Problem(
            400, "bad_parameter", "code must be letters a to z and _, such as conflict", field="code"
        )
    if origin is not None and (not origin or len(origin) > _ORIGIN_MAX or "\0" in origin):
        message = f"origin must be 1 to {_ORIGIN_MAX} characters, the beginning of what is looked for"
        raise Problem(400, "bad_parameter", message, field="origin")
    start, end = parameters.open_window(from_, to)
    word: Any = None if kind is None else parameters.choice("kind", kind, KINDS, "")
    return Filters(
        letter_kind=word,
        letter_device=None if device_id is None else parameters.device("deviceId", device_id),
        letter_code=code,
        letter_origin=origin,
        window_from=start,
        window_to=end,
    )


def letter_id(name: str, text: str) -> int:
    """Read the id of a letter."""
    # Not as a float, which would round a number that is too large onto one that is not.
    if not _ID.fullmatch(text) or not 1 <= int(text) <= ID_MAX:
        message = f"{name} must be the id of a dead letter, a whole number"
        raise Problem(400, "bad_parameter", message, field=name)
    return int(text)
