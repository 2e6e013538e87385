"""How long one input may take."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

# Of processor time, so that a busy machine fails nothing. The usual input takes a tenth of a millisecond.
INPUT_S: Final = 2.0


class HangError(Exception):
    """An input took far too long."""


@contextlib.contextmanager
def watchdog() -> Iterator[Callable[[], object]]:
    """Give what is to be called before each input: HangError is raised when the next call comes too late."""

    def bark(_number: int, _frame: FrameType | None) -> NoReturn:
        raise HangError(f"more than {INPUT_S:.0f} s of processor time for one input")

    before = signal.signal(signal.SIGPROF, bark)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_PROF, INPUT_S)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
