"""The HTTP service as a process of its own, and raw connections to it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from anyio import to_thread

from service.settings import PREFIX, Settings
from tests.support import servers

# How long something may take that takes milliseconds; only a failing test waits that long.
PATIENCE_S = 30


class Served(NamedTuple):
    """A running service: where it listens, how to reach it, and what it logs."""

    port: int
    client: httpx.AsyncClient
    log_file: Path
    pid: int

    @property
    def address(self) -> str:
        """Give its address on loopback."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """Give what it has logged up to now."""
        return self.log_file.read_text()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a raw connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, request: bytes) -> bytes:
        """Send bytes on a connection of its own; give all that comes back until it is closed."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def served(
    settings: Settings, folder: Path, *, verify: ssl.SSLContext | None = None, **variables: object
) -> AsyncIterator[Served]:
    """Run `fleetwatt serve` until the end of the block; `variables` are settings, `verify` means HTTPS."""
    port = servers.free_port()
    log_file = folder / "serve.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    chosen = {"DATABASE_URL": settings.database_url, "HTTP_PORT": port, "LOG_FORMAT": "json", **variables}
    environment |= {PREFIX + name: str(value) for name, value in chosen.items()}
    with log_file.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
            [sys.executable, "-m", "service", "serve"], env=environment, stdout=output, stderr=output
        )
    address = f"{'https' if verify else 'http'}://localhost:{port}"
    try:
        async with httpx.AsyncClient(
            base_url=address, trust_env=False, verify=verify or True, timeout=PATIENCE_S
        ) as client:
            async with asyncio.timeout(PATIENCE_S):
                while not await _is_ready(client):
                    assert process.poll() is None, log_file.read_text()
                    await asyncio.sleep(0.05)
            yield Served(port, client, log_file, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def make_key(settings: Settings) -> str:
    """Make a key that may do everything, as an operator does; give it."""
    scopes = ("--scope", "ingest", "--scope", "read", "--scope", "admin")
    made = await to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-m", "service", "key", "create", "--name", "all", *scopes],
            env={**os.environ, PREFIX + "MIGRATE_DATABASE_URL": settings.migrate_database_url},
            capture_output=True,
            text=True,
            check=True,
        )
    )
    [key] = re.findall(r"\bfw_\S+", made.stdout)
    assert isinstance(key, str)
    return key


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).is_success
    except httpx.TransportError:
        return False
