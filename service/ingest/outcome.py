"""What passes between the stages of ingest: decoded payloads, refusals, and the result of a commit."""

from __future__ import annotations

import msgspec

from service.readings import Kind, Reading


class Rejection(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One reading (or whole payload) that was refused.

    `index` is its place in the payload, counted from 0; `code` is stable, `message` is for people.
    """

    index: int
    code: str
    message: str
    field: str | None = None
    kind: Kind | None = None
    device_id: str | None = None
    raw: bytes = b""


class Decoded(msgspec.Struct, kw_only=True, gc=False):
    """A payload after decoding.

    `indices[i]` is the place of `readings[i]` in the payload. `single` says that the payload was one
    reading by itself; `whole` that the one rejection concerns the payload, not a reading in it. `parts` are
    the bytes of each reading, once somebody has asked for them.
    """

    body: bytes
    readings: list[Reading]
    indices: list[int]
    rejections: list[Rejection]
    single: bool = False
    lines: bool = False
    whole: bool = False
    parts: list[bytes] | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a commit did with a submission: counts, and what was refused only then.

    `known` counts the refusals, also of decoding, that were dead letters before and were not kept again.
    """

    accepted: int
    duplicates: int
    rejections: list[Rejection]
    known: int = 0
