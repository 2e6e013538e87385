"""What inputs are thrown at: each target makes one from a `Random` and knows what must hold of the answer."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any, Final, cast

from service.importer.mapping import Mapping, RowReader
from service.importer.refusal import Refusal
from service.ingest.decode import decode, decode_lines
from service.ingest.mqtt import Consumer
from service.ingest.outcome import Decoded
from service.readings import Kind
from service.sessions import decode as session_messages
from service.sessions.model import NewAssignment, NewSession, Session, SessionUpdate
from service.sessions.rows import SessionMapping, SessionReader
from service.settings import Settings
from service.web import parameters
from service.web.bodies import decode_body
from service.web.inflate import inflate
from service.web.problems import Problem
from tests.fuzz import checks, oracle, payloads, texts


def json_payload(rng: Random) -> Decoded:
    """Try a JSON payload over HTTP or MQTT, with each option of the decoder."""
    body = payloads.payload(rng)
    kind: Kind | None = rng.choice((None, None, "meter", "vehicle"))
    topic_id = rng.choice(("m-1", texts.some_id(body))) if kind and rng.random() < 0.5 else None
    decoded = decode(body, checks.RULE, kind=kind, topic_id=topic_id, max_readings=checks.MOST)
    checks.check(decoded, body, kind, topic_id)
    return decoded


def lines_payload(rng: Random) -> Decoded:
    """Try an NDJSON payload."""
    body = payloads.payload(rng, lines=True)
    kind: Kind | None = rng.choice((None, None, "meter", "vehicle"))
    decoded = decode_lines(body, checks.RULE, kind=kind, max_readings=checks.MOST)
    checks.check(decoded, body, kind, None, lines=True)
    return decoded


def mqtt_message(rng: Random) -> Decoded:
    """Try a message with any topic and payload, as the consumer takes it."""
    body = payloads.payload(rng)
    name = texts.some_id(body) or "m-1"
    topic = rng.choice((f"telemetry/meter/{name}", f"telemetry/vehicle/{name}", texts.topic(rng)))
    decoded: Decoded = _CONSUMER._decode(topic, body)  # noqa: SLF001 - all of a message's way but the socket
    kind, _, topic_id = topic.removeprefix("telemetry/").partition("/")
    if kind in {"meter", "vehicle"} and oracle.ID.fullmatch(topic_id) and topic.startswith("telemetry/"):
        checks.check(decoded, body, cast("Kind", kind), topic_id)
    else:
        assert [rejection.code for rejection in decoded.rejections] == ["unknown_topic"]
        assert not decoded.readings
    return decoded


def session_message(rng: Random) -> None:
    """Try a message about a session: a start, an end, or what looks like one."""
    topic = rng.choice(("sessions/m-1", "sessions/m-1", "sessions/" + texts.text(rng), texts.topic(rng)))
    body = texts.renamed(rng, payloads.payload(rng))
    try:
        message = session_messages.decode(topic, body, checks.RULE)
    except session_messages.Unusable as unusable:
        checks.check_words(unusable.code, unusable.message, unusable.field)
        return
    assert topic == f"sessions/{message.meter_id}"
    assert oracle.ID.fullmatch(message.meter_id or "")
    said = oracle.LENIENT.read(body)
    times = [oracle.moment(said[name]) for name in ("startedAt", "endedAt") if said.get(name) is not None]
    assert times
    assert times == [moment for moment in (message.started_at, message.ended_at) if moment is not None]
    assert all(moment is not None and 1900 <= moment.year <= 3000 for moment in times)
    assert sorted(times, key=str) == times or len(times) == 1
    for name in (message.vehicle_id, message.session_id):
        assert name is None or oracle.ID.fullmatch(name)


def small_body(rng: Random) -> None:
    """Try the body of a request about a session or an assignment."""
    body = texts.renamed(rng, payloads.payload(rng))
    try:
        decode_body(body, rng.choice((NewSession, SessionUpdate, NewAssignment)))
    except Problem as problem:
        checks.check_problem(problem, 400)


def parameter(rng: Random) -> None:
    """Try the text of a query or path parameter."""
    text = texts.text(rng)
    try:
        match rng.randrange(8):
            case 0:
                moment = parameters.timestamp("from", text)
                assert moment is not None
                assert moment == oracle.moment(text[:11] + text[11:].replace(" ", "+"))
            case 1:
                start, end = parameters.window(text, rng.choice((None, texts.text(rng))))
                assert start <= end
            case 2:
                start_or_none, end_or_none = parameters.open_window(rng.choice((None, texts.text(rng))), text)
                assert start_or_none is None or end_or_none is None or start_or_none <= end_or_none
            case 3:
                assert oracle.ID.fullmatch(parameters.device("vehicleId", text))
            case 4:
                assert 1 <= (parameters.number("n", text, 1, 24) or 0) <= 24
            case 5:
                assert (
                    1 <= parameters.page(text, rng.choice((None, texts.text(rng))), 500)["page_size"] <= 500
                )
            case 6:
                assert text.lower() in {"true", "false", "0", "1"} or not parameters.flag("atomic", text)
            case _:
                assert (
                    parameters.choice("by", text, {"day": 1, "hour": 2}, "day") == {"day": 1, "hour": 2}[text]
                )
                assert parameters.zone("tz", text)
    except Problem as problem:
        checks.check_problem(problem, 400)


def gzip_body(rng: Random) -> None:
    """Try a packed body: of several members, cut off, damaged, or a bomb."""
    plain = rng.choice((payloads.payload(rng), b"\0" * rng.randrange(200_000), b""))
    packed = b"".join(gzip.compress(plain, 1, mtime=0) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    damaged = payloads.mutated(rng, packed) if rng.random() < 0.6 else packed
    most = rng.choice((100_000, 1000))
    try:
        unpacked = b"".join(inflate(damaged, most))
    except Problem as problem:
        checks.check_problem(problem, 413 if problem.code == "too_large" else 400)
        return
    assert len(unpacked) <= most
    if damaged == packed and damaged:
        assert unpacked == gzip.decompress(packed)


def imported_rows(rng: Random) -> None:
    """Try rows of a file: any texts in the cells of columns that are there."""
    header = ["meterId", "timestamp", "kwh", "voltage"]
    rows = [texts.row(rng) for _ in range(3)]
    zone = rng.choice((None, "Europe/Zurich", "America/St_Johns"))
    for result in RowReader(Mapping(tz=zone, decimal_comma=rng.random() < 0.3), header).read(
        rows, checks.RULE
    ):
        if isinstance(result, Refusal):
            checks.check_words(result.code, result.message, result.field)
        else:
            checks.check_reading(result)


def imported_sessions(rng: Random) -> None:
    """Try a row of a file of sessions."""
    header = ["vehicleId", "meterId", "startedAt", "endedAt", "kwh"]
    reader = SessionReader(SessionMapping(tz="Europe/Zurich", energy="kwh", max_hours=24), header)
    cells = texts.row(rng)
    row = cells and [*cells[:1], *cells[:2], *cells[1:]]
    result = reader.read(row)
    if isinstance(result, Session):
        assert oracle.ID.fullmatch(result.session_id)
        assert oracle.ID.fullmatch(result.vehicle_id)
        assert result.ended_at is not None
        assert timedelta(0) < result.ended_at - result.started_at <= timedelta(hours=24)
    else:
        checks.check_words(result.code, result.message, result.field)


# How often each comes up, in a hundred.
TARGETS: Final[list[tuple[int, Callable[[Random], Decoded | None]]]] = [
    (46, json_payload),
    (14, lines_payload),
    (10, mqtt_message),
    (8, session_message),
    (6, small_body),
    (6, parameter),
    (3, gzip_body),
    (4, imported_rows),
    (3, imported_sessions),
]


def try_one(seed: int, number: int) -> tuple[str, Decoded | None]:
    """Make an input by its number and throw it at its target; raises whatever is wrong."""
    rng = Random(seed * 10**12 + number)
    [target] = rng.choices([target for _, target in TARGETS], [weight for weight, _ in TARGETS])
    return target.__name__, target(rng)


_CONSUMER: Final = Consumer(
    Settings(mqtt_url="mqtt://127.0.0.1", http_max_readings=checks.MOST), cast("Any", None)
)
_CONSUMER._rule = checks.RULE  # noqa: SLF001 - the same moment for all inputs
