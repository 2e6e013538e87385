"""The server itself: slow clients, too large heads, TLS. Each test runs `fleetwatt serve` as a process."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest
from anyio import to_thread

from service.errors import SettingsError
from service.settings import Settings
from service.web import server
from tests.support.certificates import Authority
from tests.support.serving import PATIENCE_S, Served, make_key, served
from tests.support.strategies import as_json, meter

pytestmark = pytest.mark.anyio

READING: Final = json.dumps(as_json(meter())).encode()
BUNDLE: Final = b"GET /api/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
_ESTABLISHED: Final = "01"


@pytest.fixture(params=["apache"])
def edition(request: pytest.FixtureRequest) -> str:
    """Run on one edition: nothing here depends on it."""
    name: str = request.param
    return name


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    """Close the raw sockets of a test at its end."""
    with ExitStack() as stack:
        yield stack


def opened(
    stack: ExitStack, port: int, count: int, data: bytes, *, narrow: bool = False
) -> list[socket.socket]:
    """Open connections and send the same on each; `narrow` ones take next to nothing of an answer."""
    made = []
    for _ in range(count):
        connection = stack.enter_context(socket.socket())
        if narrow:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", port))
        connection.sendall(data)
        connection.setblocking(False)
        made.append(connection)
    return made


def established(port: int) -> int:
    """Count the connections that the server holds open, by the kernel's word."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [(fields[1], fields[3]) for fields in map(str.split, lines)]
    return sum(local.endswith(f":{port:04X}") and state == _ESTABLISHED for local, state in ends)


async def drip(connections: list[socket.socket], byte: bytes) -> None:
    """Send a byte on each connection four times a second, as long as the other side takes it."""
    while True:
        for connection in connections:
            try:
                connection.send(byte)
            except OSError:
                continue
        await asyncio.sleep(0.25)


async def settled(running: Served, most: int) -> None:
    """Wait until the server holds no more than that many connections."""
    async with asyncio.timeout(PATIENCE_S):
        while established(running.port) > most:
            await asyncio.sleep(0.1)


async def test_slow_clients_take_nothing_down(settings: Settings, tmp_path: Path, sockets: ExitStack) -> None:
    """300 connections that say nothing, drip their head or body, or take no answer: others are served.

    Each of them is cut after its time, and what they asked for is not held.
    """
    async with served(settings, tmp_path, HTTP_BODY_TIMEOUT_S=4, HTTP_STALLED_TIMEOUT_S=4) as running:
        port = running.port
        opened(sockets, port, 100, b"")
        heads = opened(sockets, port, 80, b"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nX: ")
        start = b"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
        bodies = opened(sockets, port, 80, start)
        opened(sockets, port, 40, BUNDLE * 20, narrow=True)
        dripping = asyncio.gather(drip(heads, b"x"), drip(bodies, b" "))
        assert established(port) >= 300
        for minute in range(5):
            body = json.dumps(as_json(meter(minute=minute))).encode()
            async with asyncio.timeout(10):
                response = await running.client.post("/v1/telemetry", content=body)
                assert response.status_code == 201
                assert (await running.client.get("/v1/sessions")).status_code == 200
            await asyncio.sleep(0.5)
        await settled(running, 2)
        dripping.cancel()
        assert (await running.client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize("first", ["Content-Length", "Transfer-Encoding"])
async def test_a_body_of_two_lengths_is_not_cut(settings: Settings, tmp_path: Path, first: str) -> None:
    """Of a body in chunks Content-Length says nothing: a reading with something behind it is no reading."""
    lengths = [f"Content-Length: {len(READING)}", "Transfer-Encoding: chunked"]
    if not lengths[0].startswith(first):
        lengths.reverse()
    head = "\r\n".join(["POST /v1/telemetry HTTP/1.1", "Host: localhost", "Connection: close", *lengths])
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (READING, b",", b""))
    async with served(settings, tmp_path) as running:
        answer = await running.say(head.encode() + b"\r\n\r\n" + chunks)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert (await running.client.get("/v1/analytics/meters/states")).json()["meters"] == []


async def test_a_slow_body_is_told(settings: Settings, tmp_path: Path) -> None:
    """A body that does not arrive in time is answered with 408, and its connection is closed."""
    async with served(settings, tmp_path, HTTP_BODY_TIMEOUT_S=0.5) as running:
        head = b"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"
        answer = await running.say(head + b"[")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer
        assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["code"] == "body_timeout"


async def test_more_connections_than_are_served(
    settings: Settings, tmp_path: Path, sockets: ExitStack
) -> None:
    """Past the limit connections wait until one before them ends; none is refused, nothing spins."""
    async with served(settings, tmp_path, HTTP_CONNECTIONS_MAX=16) as running:
        await running.client.aclose()
        held = opened(sockets, running.port, 16, b"")
        waiting = opened(sockets, running.port, 4, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.5)
        for connection in waiting:
            with pytest.raises(BlockingIOError):
                connection.recv(1)
        for connection in held:
            connection.close()
        async with asyncio.timeout(PATIENCE_S):
            loop = asyncio.get_running_loop()
            for connection in waiting:
                assert (await loop.sock_recv(connection, 100)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("request_head", "status", "by_us"),
    [
        (b"GET /health?" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost", 414, True),
        (b"GET /health?" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost", 414, False),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 300_000, 431, False),
        (
            b"GET /health HTTP/1.1\r\nHost: localhost" + b"".join(b"\r\nx%d: y" % n for n in range(101)),
            431,
            False,
        ),
        (b"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17000000", 413, True),
        (
            b"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2",
            400,
            False,
        ),
    ],
    ids=["url", "huge url", "headers", "number of headers", "announced body", "two lengths"],
)
async def test_too_large(
    settings: Settings, tmp_path: Path, request_head: bytes, status: int, *, by_us: bool
) -> None:
    """What is too large is refused before it is read, by us or, without a body, by the server below us."""
    async with served(settings, tmp_path) as running:
        answer = await running.say(request_head + b"\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"granian" not in answer.lower()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert (b"application/problem+json" in head) is bool(body) is by_us


async def test_a_body_without_a_length(settings: Settings, tmp_path: Path) -> None:
    """A body that does not say how long it is ends at the limit too, while it still arrives."""
    async with served(settings, tmp_path, HTTP_MAX_BODY_BYTES=100_000) as running:
        reader, writer = await running.connect()
        writer.write(b"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(4):
            writer.write(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.readuntil(b"\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        writer.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_https(settings: Settings, tmp_path: Path) -> None:
    """With certificate and key it serves HTTPS, TLS 1.2 and up, HTTP/1.1 only; plain HTTP gets nothing."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost", "localhost")
    trusting = ssl.create_default_context(cafile=authority.file)
    files = {"HTTP_TLS_CERT_FILE": certificate, "HTTP_TLS_KEY_FILE": key}
    async with served(settings, tmp_path, verify=trusting, **files) as running:
        response = await running.client.post("/v1/telemetry", content=READING)
        assert response.status_code == 201
        assert response.headers["strict-transport-security"]
        assert '"address": "https://127.0.0.1:' in running.log
        async with httpx.AsyncClient(trust_env=False) as stranger:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await stranger.get(f"https://localhost:{running.port}/health")
            with pytest.raises(httpx.TransportError):
                await stranger.get(f"http://localhost:{running.port}/health")
        for newest, works in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)):
            context = ssl.create_default_context(cafile=authority.file)
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.set_alpn_protocols(["h2", "http/1.1"])
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = newest
            assert await to_thread.run_sync(_agrees, running.port, context) is works


async def test_slow_handshakes(settings: Settings, tmp_path: Path, sockets: ExitStack) -> None:
    """300 connections that never begin to speak TLS, or stop in the middle, keep nobody out, and are cut."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost", "localhost")
    trusting = ssl.create_default_context(cafile=authority.file)
    files = {"HTTP_TLS_CERT_FILE": certificate, "HTTP_TLS_KEY_FILE": key}
    async with served(settings, tmp_path, verify=trusting, **files) as running:
        opened(sockets, running.port, 150, b"")
        opened(sockets, running.port, 150, b"\x16\x03\x01\x02\x00\x01")
        async with (
            asyncio.timeout(PATIENCE_S),
            httpx.AsyncClient(verify=trusting, trust_env=False, timeout=PATIENCE_S) as client,
        ):
            address = f"https://localhost:{running.port}"
            assert (await client.post(f"{address}/v1/telemetry", content=READING)).status_code == 201
        await settled(running, 2)


def _agrees(port: int, context: ssl.SSLContext) -> bool:
    """Tell whether the server agrees on what a client offers; where it does, it must be on HTTP/1.1."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        try:
            with context.wrap_socket(connection, server_hostname="localhost") as secure:
                assert secure.selected_alpn_protocol() == "http/1.1"
                return True
        except (ssl.SSLError, ConnectionError):
            return False


async def test_keys_in_clear_are_warned_of(settings: Settings, tmp_path: Path) -> None:
    """Where others can reach it without TLS the log says so, once; on loopback nobody is in between."""
    await make_key(settings)
    for host, warnings in (("0.0.0.0", 1), ("127.0.0.1", 0)):  # noqa: S104 - what is warned of
        async with served(settings, tmp_path, HTTP_HOST=host) as running:
            assert running.log.count("keys_in_clear") == warnings
            assert (await running.client.get("/v1/sessions")).status_code == 401


def test_certificates_that_cannot_work(tmp_path: Path) -> None:
    """A certificate without its key, one that is none, a file that is not there: what is wrong is named."""
    certificate, key = Authority(tmp_path).issue("localhost", "localhost")
    other = Authority(tmp_path, "other").issue("other", "localhost")[1]
    missing, locked, broken = tmp_path / "missing", tmp_path / "locked.pem", tmp_path / "broken.pem"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n")
    broken.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    for cert_file, key_file, words in (
        (certificate, "", "set both FLEETWATT_HTTP_TLS_CERT_FILE and"),
        ("", key, "set both FLEETWATT_HTTP_TLS_CERT_FILE and"),
        (certificate, other, "FLEETWATT_HTTP_TLS_CERT_FILE and .* are no certificate with its key: KEY_"),
        (key, certificate, "FLEETWATT_HTTP_TLS_CERT_FILE='.*' holds no certificate"),
        (certificate, certificate, "FLEETWATT_HTTP_TLS_KEY_FILE='.*' holds no private key"),
        (certificate, missing, "FLEETWATT_HTTP_TLS_KEY_FILE='.*missing' cannot be read"),
        (missing, key, "FLEETWATT_HTTP_TLS_CERT_FILE='.*missing' cannot be read"),
        (certificate, locked, "FLEETWATT_HTTP_TLS_KEY_FILE='.*' has a password"),
        (broken, key, "are no certificate with its key: [^N]"),
    ):
        chosen = Settings(http_tls_cert_file=str(cert_file), http_tls_key_file=str(key_file))
        with pytest.raises(SettingsError, match=words):
            server.run("service.app:asgi", chosen)
