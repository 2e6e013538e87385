"""What a dead letter is, what letters can be asked for by, and how one is told."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any, Final

import msgspec

from service.readings import Kind

# In the place of why the last try was refused: somebody said that there is nothing to be done.
_DISMISSED: Final = "dismissed"


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """What was refused, as it is stored; `raw_size` is its size in bytes, also where `raw` was cut off."""

    dead_letter_id: int
    received_at: datetime
    origin: str
    kind: Kind | None
    device_id: str | None
    code: str
    field: str | None
    message: str
    raw: bytes
    raw_size: int
    replays: int
    replayed_at: datetime | None
    replay_error: str | None
    resolved_at: datetime | None

    @property
    def truncated(self) -> bool:
        """Tell whether only the beginning of the payload was kept."""
        return self.raw_size > len(self.raw)

    @property
    def dismissed(self) -> bool:
        """Tell whether it was closed by hand, and nothing of it was stored by that."""
        return self.resolved_at is not None and self.replay_error == _DISMISSED

    @property
    def text(self) -> str | None:
        """Give the bytes as text, if they are UTF-8."""
        try:
            return self.raw.decode()
        except UnicodeDecodeError:
            return None

    def told(self) -> dict[str, Any]:
        """Give the letter as the API and exports tell it: bytes as text, or in Base64 where they are none."""
        text = self.text
        return {
            "id": self.dead_letter_id,
            "receivedAt": self.received_at,
            "origin": self.origin,
            "kind": self.kind,
            "deviceId": self.device_id,
            "code": self.code,
            "field": self.field,
            "message": self.message,
            "raw": text,
            "rawBase64": base64.b64encode(self.raw).decode() if text is None else None,
            "rawSize": self.raw_size,
            "truncated": self.truncated,
            "replays": self.replays,
            "replayedAt": self.replayed_at,
            "replayError": self.replay_error,
            "resolvedAt": self.resolved_at,
        }


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What letters are asked for by; None asks for all. `origin` is a prefix, the window is [from, to)."""

    letter_kind: Kind | None = None
    letter_device: str | None = None
    letter_code: str | None = None
    letter_origin: str | None = None
    window_from: datetime | None = None
    window_to: datetime | None = None


class Sized(msgspec.Struct, frozen=True):
    """Which letter, and how many of its bytes are kept."""

    dead_letter_id: int
    kept: int


class Group(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """The letters of one code and kind: how many, how many wait, their bytes, the oldest and the newest."""

    code: str
    kind: Kind | None
    letters: int
    waiting: int
    kept: int = msgspec.field(name="rawBytes")
    oldest: datetime
    newest: datetime


def portions(found: list[Sized], most: int, most_bytes: int) -> list[list[int]]:
    """Cut letters into portions of so many letters and bytes at most; one of any size may stand alone."""
    cut: list[list[int]] = []
    room = 0
    for letter in found:
        if not cut or len(cut[-1]) == most or letter.kept > room:
            cut.append([])
            room = most_bytes
        cut[-1].append(letter.dead_letter_id)
        room -= letter.kept
    return cut
