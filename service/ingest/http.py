"""Telemetry over HTTP: every ingest route, answered after the commit."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from litestar import MediaType, Request, Response, Router, post
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter, SkipValidation

from service import tallies
from service.errors import AtomicRefusedError, IngestError
from service.ingest import openapi
from service.ingest.batch import DAYS_MAX, utc_day
from service.ingest.decode import beside, decode, decode_lines
from service.ingest.foreign import refuse_foreign
from service.ingest.outcome import Decoded, Rejection
from service.ingest.pipeline import Pipeline
from service.ingest.refusals import conflict
from service.ingest.shapes import SHAPES
from service.readings import Kind, TimeRule
from service.settings import Settings
from service.web import parameters
from service.web.bodies import read_body
from service.web.express import Answered, Route
from service.web.principal import INGEST, KEY_SECURITY, needs, principal_of
from service.web.problems import Problem, unavailable
from service.web.room import Room

AnyRequest = Request[Any, Any, Any]
_ANY: Final = "/v1/telemetry"
_ONE: Final[dict[Kind, list[str]]] = {
    "meter": ["/v1/ingest/meter", "/v1/ingestion/meter"],
    "vehicle": ["/v1/ingest/vehicle", "/v1/ingestion/vehicle"],
}
_MANY: Final[dict[Kind, str]] = {
    "meter": "/v1/ingestion/meter/batch",
    "vehicle": "/v1/ingestion/vehicle/batch",
}
# Measured with 50,000 of each: 12 MiB, and 20 MiB with the answer that names them.
_READING_BYTES: Final = 300
_REJECTION_BYTES: Final = 500
_COUNTS: Final = tallies.source("http")


class Intake(NamedTuple):
    """What every ingest route needs."""

    pipeline: Pipeline
    settings: Settings

    async def take(
        self, request: AnyRequest, kind: Kind | None, *, shape: str = "any", atomic: str | None = None
    ) -> Answered:
        """Read, decode, store and answer. `shape` is what the route takes: one, batch, or any."""
        all_or_nothing = parameters.flag("atomic", atomic)
        body, is_lines = await read_body(request)
        rule = TimeRule.of(self.settings)
        limit = self.settings.http_max_readings
        how = decode_lines if is_lines else decode
        decoded = await beside(body, partial(how, body, rule, kind=kind, max_readings=limit))
        await Room.of(request).take(_weight(decoded))
        caller = principal_of(request)
        status = 403 if refuse_foreign(decoded, caller) else 400
        _COUNTS.decoded(len(decoded.readings), decoded.rejections)
        _check_shape(decoded, shape, is_lines=is_lines)
        origin = f"http:{request.scope['path']}"
        if caller.bound:
            # Kept with a dead letter, so that trying it again holds it against the key's devices too.
            origin += f"#{caller.key_id}"
        if not decoded.readings or (all_or_nothing and decoded.rejections):
            await self._keep_refused(decoded, origin, atomic=all_or_nothing)
            raise refusal(decoded, decoded.rejections, atomic=all_or_nothing, status=status)
        if all_or_nothing and len({utc_day(r.recorded_at) for r in decoded.readings}) > DAYS_MAX:
            raise Problem(
                400,
                "too_many_days",
                f"an all-or-nothing request may span at most {DAYS_MAX} different days: split it",
                field="timestamp",
            )
        if not self.pipeline.available:
            raise unavailable("the database is not available; send again soon, nothing was stored")
        try:
            outcome = await self.pipeline.submit(
                decoded,
                origin,
                atomic=all_or_nothing,
                room_wait_s=1.0,
                commit_wait_s=self.settings.http_commit_timeout_s,
            )
        except AtomicRefusedError as error:
            # All of it was decoded: what has an index in the payload has the same place among the readings.
            rejected = [_rejected(conflict(decoded, index)) for index in error.conflicts]
            raise Problem(
                400,
                "atomic_refused",
                f"{error}; nothing was stored",
                extra={"accepted": 0, "duplicates": 0, "rejected": rejected},
            ) from None
        rejections = sorted([*decoded.rejections, *outcome.rejections], key=lambda rejection: rejection.index)
        if not outcome.accepted and not outcome.duplicates:
            raise refusal(decoded, rejections)
        counts = {"accepted": outcome.accepted, "duplicates": outcome.duplicates}
        if decoded.single:
            return Answered(201, msgspec.json.encode(counts))
        rejected = [_rejected(rejection) for rejection in rejections]
        return Answered(200, msgspec.json.encode({**counts, "rejected": rejected}))

    async def _keep_refused(self, decoded: Decoded, origin: str, *, atomic: bool) -> None:
        """Store a payload that is nothing but refusals as dead letters, if that can be done right now."""
        if atomic or not self.pipeline.available:
            return
        try:
            await self.pipeline.submit(decoded, origin, room_wait_s=0, commit_wait_s=2.0)
        except IngestError:
            # The sender is told that it was refused in any case and keeps what it sent.
            return


def _weight(decoded: Decoded) -> int:
    """Give about how much memory a decoded payload takes beside its bytes, and the answer to it."""
    refused = 0 if decoded.whole else sum(len(rejection.raw) for rejection in decoded.rejections)
    return len(decoded.readings) * _READING_BYTES + len(decoded.rejections) * _REJECTION_BYTES + refused


def _check_shape(decoded: Decoded, shape: str, *, is_lines: bool) -> None:
    """Hold the payload against what the route takes."""
    if decoded.whole or shape == "any":
        return
    if shape == "one" and not decoded.single:
        raise Problem(
            400, "wrong_shape", "this address takes one reading: send many to /v1/telemetry or to .../batch"
        )
    if shape == "batch" and (decoded.single or is_lines):
        raise Problem(400, "wrong_shape", 'this address takes {"readings": [...]}', field="readings")


def refusal(
    decoded: Decoded, rejections: list[Rejection], *, atomic: bool = False, status: int = 400
) -> Problem:
    """Word the answer to a payload of which nothing was stored."""
    first = rejections[0]
    if decoded.whole:
        status = 413 if first.code == "too_many_readings" else 400
        return Problem(status, first.code, first.message, field=first.field)
    if decoded.single:
        return Problem(status, first.code, first.message, title="The reading was refused", field=first.field)
    why = (
        "one bad reading refuses all of them, as asked by atomic=true"
        if atomic
        else "none of the readings is good"
    )
    return Problem(
        status,
        "atomic_refused" if atomic else "all_refused",
        f"nothing was stored: {why}; the first: {first.message}",
        title="The readings were refused",
        field=first.field,
        extra={
            "accepted": 0,
            "duplicates": 0,
            "rejected": [_rejected(rejection) for rejection in rejections],
        },
    )


def _rejected(rejection: Rejection) -> dict[str, Any]:
    return {
        "index": rejection.index,
        "field": rejection.field,
        "code": rejection.code,
        "message": rejection.message,
    }


def _response(answered: Answered) -> Response[bytes]:
    return Response(content=answered.body, status_code=answered.status, media_type=MediaType.JSON)


# We made it: nothing to validate on each request.
InjectedIntake = NamedDependency[SkipValidation[Intake]]
AtomicFlag = Annotated[str | None, QueryParameter(name="atomic")]


@post(
    _ANY,
    operation_class=openapi.TELEMETRY,
    summary="Readings of either kind: one, many, or NDJSON",
)
async def telemetry(
    request: AnyRequest,
    intake: InjectedIntake,
    atomic: AtomicFlag = None,
) -> Response[bytes]:
    """Store one reading (told apart by meterId or vehicleId), an array, {"readings": [...]}, or NDJSON."""
    return _response(await intake.take(request, None, atomic=atomic))


@post(
    _ONE["meter"],
    operation_class=openapi.ONE_METER,
    summary="One meter reading",
)
async def one_meter_reading(request: AnyRequest, intake: InjectedIntake) -> Response[bytes]:
    """Store one meter reading."""
    return _response(await intake.take(request, "meter", shape="one"))


@post(
    _ONE["vehicle"],
    operation_class=openapi.ONE_VEHICLE,
    summary="One vehicle reading",
)
async def one_vehicle_reading(request: AnyRequest, intake: InjectedIntake) -> Response[bytes]:
    """Store one vehicle reading."""
    return _response(await intake.take(request, "vehicle", shape="one"))


@post(
    _MANY["meter"],
    operation_class=openapi.MANY_METERS,
    summary="Many meter readings",
)
async def meter_batch(
    request: AnyRequest,
    intake: InjectedIntake,
    atomic: AtomicFlag = None,
) -> Response[bytes]:
    """Store {"readings": [...]} of meters; good ones are stored, bad ones are named by index."""
    return _response(await intake.take(request, "meter", shape="batch", atomic=atomic))


@post(
    _MANY["vehicle"],
    operation_class=openapi.MANY_VEHICLES,
    summary="Many vehicle readings",
)
async def vehicle_batch(
    request: AnyRequest,
    intake: InjectedIntake,
    atomic: AtomicFlag = None,
) -> Response[bytes]:
    """Store {"readings": [...]} of vehicles; good ones are stored, bad ones are named by index."""
    return _response(await intake.take(request, "vehicle", shape="batch", atomic=atomic))


def express_routes(intake: Intake) -> dict[str, Route]:
    """Give the same routes for the short way."""
    takes = {_ANY: partial(intake.take, kind=None)}
    for kind in SHAPES:
        takes |= dict.fromkeys(_ONE[kind], partial(intake.take, kind=kind, shape="one"))
        takes[_MANY[kind]] = partial(intake.take, kind=kind, shape="batch")
    return {path: Route(take, INGEST) for path, take in takes.items()}


def router(intake: Intake) -> Router:
    """Give the ingest routes."""
    return Router(
        path="/",
        route_handlers=[telemetry, one_meter_reading, one_vehicle_reading, meter_batch, vehicle_batch],
        dependencies={"intake": Provide(lambda: intake, sync_to_thread=False)},
        tags=["Ingest"],
        opt=needs(INGEST),
        security=KEY_SECURITY,
    )
