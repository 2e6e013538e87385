"""How a process tells its supervisor that it is ready, and how it ends when it is asked to."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

_PR_SET_PDEATHSIG = 1


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


@asynccontextmanager
async def alongside(*jobs: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run jobs in the background while the body runs; they are cancelled, and waited for, at its end."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
