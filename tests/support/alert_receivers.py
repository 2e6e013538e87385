"""Who receives alerts in the tests: a real HTTP server and real MQTT subscribers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from prometheus_client import REGISTRY

from tests.support import servers
from tests.support.strategies import Owner, rows

# How long something may take that takes milliseconds; only a failing test waits that long.
PATIENCE_S = 20
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Request(NamedTuple):
    """A request as the webhook's server got it."""

    line: str
    headers: dict[str, str]
    body: Any


class Receiver:
    """A webhook's server: it keeps each request and answers with the bytes of a script, then with 204.

    None in the script stands for an answer that never comes, empty bytes for a connection that is closed.
    """

    def __init__(self, script: list[bytes | None]) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request of a connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers["content-length"]))
            self.requests.append(Request(head[0], headers, json.loads(body)))
            answer = self.script.pop(0) if self.script else OK
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def receiving(*script: bytes | None, port: int = 0) -> AsyncIterator[Receiver]:
    """Run a webhook's server."""
    receiver = Receiver(list(script))
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", port)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook/s3cret?token=s3cret"
    try:
        yield receiver
    finally:
        server.close()


async def retained(port: int, vehicle_id: str) -> tuple[bool, dict[str, Any]]:
    """Subscribe anew to the alerts of a vehicle; give the first message and whether it had been retained."""
    process = await asyncio.create_subprocess_exec(
        str(servers.apache_root() / "usr/bin/mosquitto_sub"),
        "-V", "5", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-C", "1", "-W", str(PATIENCE_S),
        "-t", f"alerts/vehicle/{vehicle_id}", "-F", "%r %p",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, "nothing was published"
    flag, _, payload = output.decode().partition(" ")
    return flag == "1", json.loads(payload)


def deliveries(channel: str, result: str) -> float:
    """Give how many events this process counted, by channel and what became of them."""
    return (
        REGISTRY.get_sample_value("fleetwatt_alert_deliveries_total", {"channel": channel, "result": result})
        or 0.0
    )


async def eventually(check: Callable[[], bool]) -> None:
    """Wait until something holds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while not check():
                await asyncio.sleep(0.02)
    assert check()


async def until(owner: Owner, condition: str, expected: int) -> None:
    """Wait until as many alert events fulfil a condition."""
    found = -1
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while found != expected:
                await asyncio.sleep(0.02)
                [row] = await rows(owner, f"select count(*) as n from alert_event where {condition}")  # noqa: S608
                found = row["n"]
    assert found == expected, await rows(owner, "select * from alert_event order by event_id")
