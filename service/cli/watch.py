"""Asks a running service, over HTTP, for what `fleetwatt top` shows; what fails is told, and asked again."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Self

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from service import log
from service.errors import FleetwattError
from service.simulator.http import key_headers
from service.web.answers import rfc3339

_TIMEOUT_S: Final = 10.0
# A look over a whole fleet for what moves by the hour: not at every turn.
_WORST_EVERY_S: Final = 30.0
_ALERTS: Final = 5
_HOW: Final = "make one: fleetwatt key create --name top --scope read"


class Sight(NamedTuple):
    """What was seen of a service. While something is in the way the figures are those of `seen_at`."""

    url: str
    at: datetime
    # What is wrong, "" if nothing is, and since when.
    trouble: str = ""
    since: datetime | None = None
    # None until the service has told them once.
    figures: Figures | None = None
    seen_at: datetime | None = None

    @property
    def good(self) -> bool:
        """Tell whether the service answers, and can store and read."""
        return not self.trouble

    def told(self) -> bytes:
        """Give it as one line of JSON."""
        parts = self.figures._asdict() if self.figures else dict.fromkeys(Figures._fields)
        head = {
            "time": rfc3339(self.at),
            "url": self.url,
            "ok": self.good,
            "trouble": self.trouble or None,
            "since": rfc3339(self.since),
            "figuresAt": rfc3339(self.seen_at),
        }
        return msgspec.json.encode(head | parts)


class Figures(NamedTuple):
    """What the API answers, as it answers it; `buffer` is that of the process that answered."""

    ready: dict[str, Any]
    overview: dict[str, Any]
    stats: dict[str, Any]
    buffer: dict[str, int]
    alerts: list[dict[str, Any]]
    worst: list[dict[str, Any]]


class _TroubleError(Exception):
    """Why there are no new figures; it may pass."""


class Watch:
    """Looks at a service again and again; an async context manager."""

    def __init__(self, url: str, api_key: str, *, zone: str, worst: int) -> None:
        self._url = url
        self._sight = Sight(url, datetime.now(UTC))
        self._zone = zone
        self._worst_wanted = worst
        self._worst: tuple[float, list[dict[str, Any]]] | None = None
        try:
            self._client = httpx.AsyncClient(
                base_url=url,
                headers=key_headers(api_key),
                timeout=_TIMEOUT_S,
                trust_env=False,
                # Also with authorities of one's own: SSL_CERT_FILE.
                verify=ssl.create_default_context(),
            )
        except httpx.InvalidURL as error:
            raise FleetwattError(f"--url {url!r} is no address: {error}") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def look(self) -> Sight:
        """Give what there is to see now. Raises FleetwattError where asking again cannot help: a bad key."""
        now = datetime.now(UTC)
        try:
            figures = await self._ask()
        except _TroubleError as error:
            since = self._sight.since or now
            self._sight = self._sight._replace(at=now, trouble=f"{error}", since=since)
        else:
            self._sight = Sight(self._url, now, figures=figures, seen_at=now)
        return self._sight

    async def _ask(self) -> Figures:
        ready = await self._get("/health/ready")
        if ready.get("service") != "fleetwatt":
            raise _TroubleError("what answers there is no fleetwatt")
        try:
            async with asyncio.TaskGroup() as group:
                overview = group.create_task(self._get("/v1/analytics/overview", tz=self._zone))
                stats = group.create_task(self._get("/v1/analytics/stats"))
                alerts = group.create_task(self._get("/v1/alerts", state="open", limit=_ALERTS))
                buffer = group.create_task(self._buffer())
                worst = group.create_task(self._least_efficient())
        except* (_TroubleError, FleetwattError) as errors:
            raise _first(errors) from None
        return Figures(
            ready,
            overview.result(),
            stats.result(),
            buffer.result(),
            alerts.result()["alerts"],
            worst.result(),
        )

    async def _least_efficient(self) -> list[dict[str, Any]]:
        now = asyncio.get_running_loop().time()
        if self._worst is None or now - self._worst[0] >= _WORST_EVERY_S:
            answer = await self._get("/v1/analytics/fleet", limit=self._worst_wanted)
            self._worst = now, answer["vehicles"]
        return self._worst[1]

    async def _buffer(self) -> dict[str, int]:
        wanted = {"fleetwatt_buffer_readings": "readings", "fleetwatt_buffer_max_readings": "maxReadings"}
        text = (await self._request("/metrics")).text
        return {
            wanted[family.name]: int(sample.value)
            for family in text_string_to_metric_families(text)
            if family.name in wanted
            for sample in family.samples
        }

    async def _get(self, path: str, **params: Any) -> dict[str, Any]:
        response = await self._request(path, **params)
        try:
            answer: dict[str, Any] = msgspec.json.decode(response.content, type=dict[str, Any])
        except msgspec.DecodeError:
            raise _TroubleError(f"{path} answers something that is no JSON: is it fleetwatt?") from None
        return answer

    async def _request(self, path: str, **params: Any) -> httpx.Response:
        try:
            response = await self._client.get(path, params=params)
        except httpx.TimeoutException:
            raise _TroubleError(f"no answer within {_TIMEOUT_S:.0f} s") from None
        except (httpx.HTTPError, OSError) as error:
            raise _TroubleError(f"no answer: {log.printable(str(error)) or type(error).__name__}") from None
        if response.is_success:
            return response
        detail, code = _problem(response)
        match response.status_code:
            case HTTPStatus.BAD_REQUEST:
                raise FleetwattError(detail)
            case HTTPStatus.UNAUTHORIZED if code == "missing_key":
                raise FleetwattError(f"{self._url} asks for a key in FLEETWATT_API_KEY; {_HOW}")
            case HTTPStatus.UNAUTHORIZED:
                raise FleetwattError(f"{self._url} refuses the key in FLEETWATT_API_KEY ({code}); {_HOW}")
            case HTTPStatus.FORBIDDEN:
                raise FleetwattError(f"{self._url}: {detail}; {_HOW}")
        raise _TroubleError(detail)


def _problem(response: httpx.Response) -> tuple[str, str]:
    """Give what an answer says is wrong, and its code. It may be of whoever stands between."""
    try:
        problem = msgspec.json.decode(response.content, type=dict[str, Any])
        detail, code = str(problem["detail"]), str(problem["code"])
        if "breaker" in problem:
            detail += f" (breaker {problem['breaker']})"
        return log.printable(detail), log.printable(code)
    except (msgspec.DecodeError, KeyError):
        return f"{response.url.path} answers {response.status_code}", ""


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """Give the error that counts most: one that does not pass."""
    return next(
        (error for error in errors.exceptions if isinstance(error, FleetwattError)), errors.exceptions[0]
    )
