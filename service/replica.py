"""Whether a replica may be asked: whether it is there, one of our database, and not too far behind."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Literal, NamedTuple, Self

from service import lifecycle, log, metrics
from service.errors import DatabaseUnavailableError
from service.line import Line
from service.settings import Settings
from service.sql import query

# ok: it may be asked; behind: further than the bound; away: it does not answer; foreign: it is a server of
# another database, or was cut off from ours and goes on by itself.
State = Literal["ok", "behind", "away", "foreign"]
STATES: Final[tuple[State, ...]] = ("ok", "behind", "away", "foreign")

_EVERY_S: Final = 1.0
_PATIENCE_S: Final = 1.5
# Marks that are kept, one a look: lag is told up to an hour, which is also the largest bound.
_MARKS_MAX: Final = 3600


class Mark(NamedTuple):
    """A moment (monotonic, s), and a position in the primary's log behind all that was committed by then."""

    at: float
    position: int


class Progress:
    """How far a replica is behind, told by positions in the log and our own clock alone.

    The servers' clocks need not agree, and a primary that is idle makes no lag: a replica that has replayed
    the log up to a mark holds all that was committed at its moment.
    """

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque(maxlen=_MARKS_MAX)
        self._timeline: int | None = None
        self._caught_up_at = -math.inf

    def mark(self, at: float, position: int, timeline: int | None) -> None:
        """Note where the primary's log ended, asked at a moment."""
        if timeline != self._timeline:
            # Another server took over: it goes on with a log that positions of the one before say nothing of.
            self._marks.clear()
            self._timeline = timeline
        self._marks.append(Mark(at, position))

    def replayed(self, position: int) -> None:
        """Note up to where the replica has replayed the log."""
        while self._marks and self._marks[0].position <= position:
            self._caught_up_at = self._marks.popleft().at

    def lag_s(self, now: float) -> float:
        """Give the age of the newest moment of which the replica is known to hold everything."""
        return now - self._caught_up_at


class Replica:
    """Watches a replica, as an async context manager; `lost` is called when it does not answer any more."""

    def __init__(self, settings: Settings, lost: Callable[[], None]) -> None:
        self._lag_max_s = settings.read_lag_max_s
        self._primary = Line(settings.database_url, "replica watch", _PATIENCE_S)
        self._replica = Line(settings.read_database_url, "replica watch", _PATIENCE_S)
        self._lost = lost
        self._progress = Progress()
        self._answers: Literal["ok", "away", "foreign"] = "away"
        # What the primary said last; it may be away by now.
        self._ours: dict[str, Any] | None = None
        self._told: State | None = None
        self._log = log.get("replica")

    @property
    def state(self) -> State:
        """Tell whether it may be asked right now, or why not."""
        if self._answers != "ok":
            return self._answers
        return "ok" if self._progress.lag_s(monotonic()) <= self._lag_max_s else "behind"

    async def __aenter__(self) -> Self:
        self._running = lifecycle.alongside(
            lifecycle.repeat(self.look, _EVERY_S, self._log, "replica_watch_failed")
        )
        await self._running.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.__aexit__(None, None, None)
        await self._primary.close()
        await self._replica.close()

    async def look(self) -> None:
        """Ask both servers how far they are."""
        at = monotonic()
        primary = await _position(self._primary)
        # Afterwards: a replica that is not behind has the primary's position by then.
        replica = await _position(self._replica)
        if primary is not None and not primary["in_recovery"]:
            self._ours = primary
            self._progress.mark(at, primary["position"], primary["timeline"])
        self._answers = self._judge(replica)
        if replica is not None and self._answers == "ok":
            self._progress.replayed(replica["position"])
        self._tell()

    def _judge(self, replica: dict[str, Any] | None) -> Literal["ok", "away", "foreign"]:
        if replica is None:
            self._lost()
            return "away"
        if self._ours is None:
            return "ok"
        equal = ["system_identifier", "database_oid"]
        if not replica["in_recovery"]:
            # It takes writes itself, so it must be the primary: a former one, cut off and on its own, is not.
            equal.append("timeline")
        return "ok" if all(replica[name] == self._ours[name] for name in equal) else "foreign"

    def _tell(self) -> None:
        state, lag_s = self.state, self._progress.lag_s(monotonic())
        metrics.REPLICA_LAG.set(lag_s)
        for each in STATES:
            metrics.REPLICA_STATE.labels(each).set(each == state)
        if state != self._told:
            level = self._log.info if state == "ok" else self._log.warning
            level("replica_state", state=state, lag_s=round(lag_s, 1) if math.isfinite(lag_s) else None)
        self._told = state


async def _position(line: Line) -> dict[str, Any] | None:
    """Ask a server who it is and up to where its log goes; None if it does not say."""
    try:
        [row] = await line.ask(query("log_position"))
    except DatabaseUnavailableError:
        return None
    return row
