"""Texts that are no payloads: of parameters, topics and cells; and readings dressed up as sessions."""

from __future__ import annotations

import json
from random import Random

from tests.fuzz import oracle, payloads


def some_id(body: bytes) -> str | None:
    """Give the id that a payload most likely names, so that it fits its topic."""
    for name in (b'"meterId":', b'"vehicleId":'):
        found = body.partition(name)[2].strip()[1:65].partition(b'"')[0].decode(errors="replace")
        if oracle.ID.fullmatch(found):
            return found
    return None


def renamed(rng: Random, body: bytes) -> bytes:
    """Make a reading look like a session."""
    for old, new in (
        (b"kwhConsumedAc", b"sessionId"),
        (b"voltage", b"vehicleId"),
        (b"timestamp", rng.choice((b"startedAt", b"endedAt"))),
        (b"soc", b"endedAt"),
    ):
        if rng.random() < 0.8:
            body = body.replace(old, new)
    if rng.random() < 0.5:
        session: dict[str, str | None] = {
            "vehicleId": "v-1",
            "meterId": "m-1",
            "startedAt": rng.choice(payloads.TIMES),
        }
        session |= {"endedAt": rng.choice((None, rng.choice(payloads.TIMES)))}
        body = json.dumps({name: session[name] for name in session if rng.random() < 0.9}).encode()
        body = payloads.mutated(rng, body) if rng.random() < 0.3 else body
    return body


def text(rng: Random) -> str:
    """Give the text of a parameter, a topic or a cell; half a surrogate pair never gets that far."""
    return _any_text(rng).encode(errors="replace").decode()


def _any_text(rng: Random) -> str:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(payloads.TIMES)
    if kind == 1:
        return str(rng.choice(list(payloads.reading(rng).values())))
    if kind == 2:
        return rng.choice(
            ("true", "1", "0", "day", "hour", "UTC", "Europe/Zurich", "../etc/passwd", "localtime")
        )
    if kind == 3:
        return rng.choice(payloads.RAW_VALUES).decode("utf-8", "surrogateescape")
    if kind == 4:
        return rng.choice(
            ("\ud800", "\0", "a\0b", "1" * 5000, "\uff11\uff12", "1_0", "0x1", " 1 ", "1,5", "-", "∞", "=1+1")
        )
    return rng.randbytes(rng.randrange(80)).decode(rng.choice(("latin-1", "utf-16-le")), "replace")


def topic(rng: Random) -> str:
    """Give a topic, most often none of ours."""
    name = text(rng)
    return rng.choice(
        (
            name,
            f"telemetry/{name}",
            f"telemetry/meter/{name}",
            f"telemetry/meter/{name}/x",
            "telemetry/meter/" + "a" * 65,
            "telemetry/" + "/" * 60_000,
            f"TELEMETRY/meter/{name}",
            "$SYS/x",
            "",
        )
    )


def row(rng: Random) -> list[str] | None:
    """Give the cells of a row of a file, or a line that is no row."""
    if rng.random() < 0.1:
        return None
    reading = payloads.reading(rng)
    cells = [str(reading.get("meterId", "m-1")), str(reading["timestamp"]), "0.5", "230"]
    for _ in range(rng.choice((0, 1, 1, 2))):
        cells[rng.randrange(len(cells))] = text(rng)
    return cells[: rng.choice((4, 4, 4, 3, 0))] + ["more"] * (rng.random() < 0.05)
