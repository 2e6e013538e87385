"""How a process tells its supervisor that it is ready, and how it ends when it is asked to."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import psycopg

_PR_SET_PDEATHSIG = 1
_CANCEL_AGAIN_S = 0.5


def collect_seldom() -> None:
    """Have the garbage collector run seldom, and leave alone what a process has made to begin with.

    Thousands of messages wait for a commit at a time: after each 700 new objects, as is the default, all of
    them would be looked through, which took two thirds of the time that a message costs. Nothing in ingest
    makes cycles; what does, such as exceptions, is still found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def die_with_parent(stop_signal: signal.Signals) -> None:
    """Ask the kernel to send this process `stop_signal` when its parent dies, even of kill -9."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, stop_signal)


def notify_ready() -> None:
    """Say READY=1 to whoever supervises this process: `fleetwatt up`, or systemd with Type=notify."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(b"READY=1", address)
        except OSError:
            # The supervisor listens while it waits; at a later restart of this process nobody does.
            return


def stop_requested() -> asyncio.Event:
    """Give an event that SIGTERM and SIGINT set. Call it inside the running loop."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event


def call_when_stopping(call: Callable[[], None]) -> None:
    """Have something called at SIGTERM and SIGINT, beside what the loop's own handlers do, and before.

    Call it inside the running loop, after whoever set those: a handler of the interpreter's takes nothing
    from them, for the loop hears of signals by a descriptor.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call))


@asynccontextmanager
async def alongside(*jobs: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run jobs in the background while the body runs; they are cancelled, and waited for, at its end."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        pending = set(tasks)
        while pending:
            # More than once: asyncio.wait_for, by which psycopg_pool waits, drops a cancellation that comes
            # in the moment when the wait is over (before Python 3.12; seen).
            for task in pending:
                task.cancel()
            pending = (await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S))[1]


async def repeat(
    work: Callable[[], Awaitable[object]], every_s: float, logger: Any, failure: str
) -> NoReturn:
    """Do something again and again; what goes wrong is logged as `failure`, and tried again next time."""
    while True:
        try:
            await work()
        except (psycopg.Error, OSError) as error:
            logger.warning(failure, error=type(error).__name__, detail=str(error).splitlines()[:1])
        except Exception:
            # A defect of ours must not end it for good.
            logger.exception(failure)
        # Spread over processes that were started together.
        await asyncio.sleep(every_s * random.uniform(0.9, 1.1))
