"""One letter is tried again: decoded under today's rules, and sent on the way that it came by.

What its origin vouches for holds again: the topic of an MQTT message names the device, a route of HTTP may
name the kind. Good readings go through the pipeline as any others, so what is stored already is recognised.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from service import tallies
from service.access.store import StoredKey, by_id
from service.access.together import Together
from service.db import ReadPool, fetch_all
from service.dead_letters.letter import Letter
from service.errors import DatabaseUnavailableError
from service.ingest.decode import decode, decode_lines
from service.ingest.foreign import FOREIGN_DEVICE, refuse_foreign
from service.ingest.letters import MANY_REFUSED
from service.ingest.outcome import Decoded, Outcome, Rejection
from service.ingest.pipeline import Pipeline
from service.readings import TimeRule
from service.sessions.decode import Unusable
from service.sessions.messages import values_of
from service.sessions.retry import retry_message
from service.settings import Settings
from service.sql import query

# Hands readings to the pipeline and waits for their commit; what is refused is not kept once more.
Submit = Callable[[Decoded, str], Awaitable[Outcome]]

_TELEMETRY: Final = re.compile(r"mqtt:telemetry/(?P<kind>meter|vehicle)/(?P<id>[A-Za-z0-9._:\-]{1,64})")
# The key is named where it is bound to devices: what it may not send it must not send by way of a replay.
_ROUTE: Final = re.compile(
    r"http:/v1/(?:(?:ingest|ingestion)/(?P<kind>meter|vehicle)(?:/batch)?|telemetry)(?:#(?P<key>[a-z0-9]{12}))?"
)
_SESSIONS: Final = "mqtt:sessions/"
_COUNTS: Final = tallies.source("replay")
# Of many readings, which may have come in lines (NDJSON).
_MAY_BE_LINES: Final = frozenset({MANY_REFUSED, "too_many_readings"})


def submit_to(pipeline: Pipeline, settings: Settings) -> Submit:
    """Give what hands readings to a pipeline: it waits as long as a request does, then tells to come back."""

    async def submit(decoded: Decoded, origin: str) -> Outcome:
        if not pipeline.available:
            raise DatabaseUnavailableError("the database is not available; try again soon")
        return await pipeline.submit(
            decoded,
            origin,
            keep_refused=False,
            room_wait_s=settings.http_commit_timeout_s,
            commit_wait_s=settings.http_commit_timeout_s,
        )

    return submit


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a letter: its readings by what became of them, and why some were refused (the first).

    `skipped` says why it was not tried at all. `waits` is said of a message about a session that was taken
    and waits for another one, as it may when it first comes.
    """

    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    code: str | None = None
    message: str | None = None
    skipped: str | None = None
    waits: bool = False

    @property
    def result(self) -> str:
        """Give it in a word."""
        if self.skipped is not None:
            return "skipped"
        if self.refused:
            return "refused"
        if self.waits:
            return "waits"
        return "stored" if self.stored else "duplicate"

    @property
    def error(self) -> str | None:
        """Say what is noted with the letter: nothing if all that was in it is stored."""
        if not self.refused:
            return None
        others = "" if self.refused == 1 else f" (and {self.refused - 1} more of its readings)"
        return f"{self.code}: {self.message}{others}".replace("\0", "")[:1000]


class Again:
    """Tries letters again; with `submit` left out it only says what would be tried."""

    def __init__(self, settings: Settings, pool: ReadPool, submit: Submit | None = None) -> None:
        self._settings = settings
        self._pool = pool
        self._submit = submit
        # Letters are tried many at once, and a key has sent many.
        self._keys = Together(self._look_up_keys)
        # In the order of the letters, and without waiting for each other's connections.
        self._one_session_at_a_time = asyncio.Lock()

    async def take(self, letter: Letter) -> Verdict:
        """Try a letter; what is in it is committed once this returns.

        Raises IngestError, psycopg.Error or TimeoutError when the database is away or the buffer is full.
        """
        # A dismissed letter was asked for by its id.
        if letter.resolved_at is not None and not letter.dismissed:
            return Verdict(skipped="it is resolved already")
        if letter.truncated:
            kept = f"only the first {len(letter.raw)} of its {letter.raw_size} bytes were kept"
            return Verdict(skipped=f"{kept}: have it sent again (FLEETWATT_DEAD_LETTER_MAX_BYTES keeps more)")
        if letter.origin.startswith(_SESSIONS):
            async with self._one_session_at_a_time:
                return await self._take_session(letter)
        decoded = self._decode(letter)
        if isinstance(decoded, str):
            return Verdict(skipped=decoded)
        route = _ROUTE.fullmatch(letter.origin)
        # A letter with this code was asked for by that very code, or by its id.
        if route and route["key"] and letter.code != FOREIGN_DEVICE:
            # Revoked or not.
            sender = await self._keys.find(route["key"])
            if sender is None:
                return Verdict(skipped="nothing is known of the key that it was sent with")
            refuse_foreign(decoded, sender.principal)
        if self._submit is not None:
            _COUNTS.decoded(len(decoded.readings), decoded.rejections)
        outcome = Outcome(accepted=len(decoded.readings), duplicates=0, rejections=[])
        if decoded.readings and self._submit is not None:
            # What decoding refuses is told here and need not go through the pipeline.
            outcome = await self._submit(msgspec.structs.replace(decoded, rejections=[]), letter.origin)
        refused = [*decoded.rejections, *outcome.rejections]
        first = min(refused, key=lambda rejection: rejection.index, default=None)
        return Verdict(
            stored=outcome.accepted,
            duplicates=outcome.duplicates,
            refused=len(refused),
            code=first.code if first else None,
            message=first.message if first else None,
        )

    def _decode(self, letter: Letter) -> Decoded | str:
        """Decode a letter, or say why it cannot be."""
        rule = TimeRule.of(self._settings)
        options: dict[str, Any] = {"max_readings": self._settings.http_max_readings}
        if topic := _TELEMETRY.fullmatch(letter.origin):
            return decode(letter.raw, rule, kind=_kind(topic), topic_id=topic["id"], **options)
        if letter.origin.startswith("mqtt:"):
            return _unknown_topic(letter)
        imported = letter.origin.startswith("import:")
        route = _ROUTE.fullmatch(letter.origin)
        if imported and letter.raw.lstrip()[:1] != b"{":
            return "a line of a CSV file means nothing without its columns: import the file again"
        if imported or route:
            kind = _kind(route) if route else None
            decoded = decode(letter.raw, rule, kind=kind, **options)
            if (
                letter.code in _MAY_BE_LINES
                and decoded.whole
                and decoded.rejections[0].code == "malformed_json"
            ):
                return decode_lines(letter.raw, rule, kind=kind, **options)
            return decoded
        return "nothing is known of how to read what came from there"

    async def _look_up_keys(self, key_ids: list[str]) -> dict[str, StoredKey]:
        return by_id(await fetch_all(self._pool, query("find_api_keys"), {"key_ids": key_ids}))

    async def _take_session(self, letter: Letter) -> Verdict:
        topic = letter.origin.removeprefix("mqtt:")
        try:
            values = values_of(self._settings, topic, letter.raw)
            if self._submit is None:
                return Verdict(stored=1)
            became = await retry_message(self._pool, values)
        except Unusable as unusable:
            return Verdict(refused=1, code=unusable.code, message=unusable.message)
        if became == "duplicate":
            return Verdict(duplicates=1)
        return Verdict(stored=1, waits=became == "waits")


def _kind(match: re.Match[str]) -> Any:
    return match["kind"]


def _unknown_topic(letter: Letter) -> Decoded:
    """Refuse once more what came under a topic that names no device."""
    rejection = Rejection(index=0, code="unknown_topic", message=letter.message, raw=letter.raw)
    return Decoded(body=letter.raw, readings=[], indices=[], rejections=[rejection], whole=True)
