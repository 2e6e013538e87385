"""Poison: what must be refused. Each piece is different; the ledger has it with the code it must get."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec

from tests.chaos.ledger import Key, Ledger

# Far enough ahead, and without a zone.
_FUTURE: Final = "2999-01-01T00:00:00Z"
_NAIVE: Final = "2026-01-01T00:00:00"
_VALUES: Final = {"meter": "voltage", "vehicle": "soc"}
_HARM: Final[dict[str, Callable[[dict[str, Any], str], object]]] = {
    "out_of_range": lambda body, value: body.update({value: -1}),
    "wrong_type": lambda body, value: body.update({value: "12.5"}),
    "missing": lambda body, value: body.pop(value),
    "future_timestamp": lambda body, _: body.update(timestamp=_FUTURE),
    "naive_timestamp": lambda body, _: body.update(timestamp=_NAIVE),
}
_UNREADABLE: Final = (
    (b'{"note": "%s", ', "malformed_json"),
    (b"\xff\xfe %s", "malformed_json"),
    (b'"%s"', "wrong_shape"),
)


def reading(ledger: Ledger, device: str, kind: str, random: Random, *, named: bool = True) -> bytes:
    """Make a reading with one thing wrong with it."""
    device_id = f"{ledger.name}-{device}-{kind[0]}"
    body = ledger.body((device_id, ledger.tick(device_id)), kind, named=named)
    code = random.choice(list(_HARM))
    _HARM[code](body, _VALUES[kind])
    return _note(ledger, msgspec.json.encode({**body, "note": _mark(ledger, device_id)}), code)


def conflict(ledger: Ledger, key: Key, kind: str) -> bytes:
    """Make a reading that is stored already, with another value."""
    body = ledger.body(key, kind)
    body[_VALUES[kind]] = body[_VALUES[kind]] / 2 + 0.01
    return _note(ledger, msgspec.json.encode({**body, "note": _mark(ledger, key[0])}), "conflict")


def unreadable(ledger: Ledger, device: str, random: Random) -> bytes:
    """Make a payload, or a line, that is no reading at all."""
    pattern, code = random.choice(_UNREADABLE)
    return _note(ledger, pattern % _mark(ledger, f"{ledger.name}-{device}").encode(), code)


def foreign(ledger: Ledger, device: str, random: Random) -> tuple[str, bytes]:
    """Make a message that is on a topic where it does not belong: the topic, and the payload."""
    key = (f"{ledger.name}-{device}-m", ledger.tick(device))
    body = {**ledger.body(key, "meter"), "note": _mark(ledger, key[0])}
    topic, code = random.choice(
        [
            (f"telemetry/charger/{key[0]}", "unknown_topic"),
            (f"telemetry/meter/{key[0]} no", "unknown_topic"),
            (f"telemetry/meter/{key[0]}-other", "id_mismatch"),
        ]
    )
    return topic, _note(ledger, msgspec.json.encode(body), code)


def _mark(ledger: Ledger, device_id: str) -> str:
    return f"{device_id}-{len(ledger.bad)}"


def _note(ledger: Ledger, raw: bytes, code: str) -> bytes:
    ledger.bad[raw] = code
    return raw
