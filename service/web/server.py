"""The HTTP server: Granian's processes, with its limits set, and what it leaves open closed."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.server import Server

from service import log
from service.errors import SettingsError
from service.loopback import is_loopback
from service.settings import Settings

# Slow headers, and a connection on which nothing follows: both end after this time.
_HEADER_TIMEOUT_S: Final = 10
# Of all headers together, up to twice that where they come in one piece; more is answered with 431, as are
# more than 100 of them.
_HEADERS_BYTES: Final = 64 * 1024
# Files that a process has open beside its connections: database, libraries, logs.
_OTHER_FILES: Final = 200
# Of a client that takes its answer slowly the kernel would hold megabytes, and events that are long past.
_UNSENT_BYTES: Final = 128 * 1024
_LISTENER_POLL_S: Final = 0.1
_ACCEPTED_S: Final = 2.0


def run(target: str, settings: Settings) -> None:
    """Serve an application, named as module:factory, until SIGTERM or SIGINT.

    Raises SettingsError where it cannot listen, or not with the certificate that it was given.
    """
    tls = _check_tls(settings)
    _check_port(settings)
    _allow_files(settings.http_connections_max + _OTHER_FILES)
    logger = log.get("http")
    scheme = "https" if tls else "http"
    logger.info("listening", address=f"{scheme}://{_bracketed(settings.http_host)}:{settings.http_port}")
    if not tls and not is_loopback(settings.http_host):
        logger.warning(
            "keys_in_clear", hint="without TLS keys can be read on the way: set FLEETWATT_HTTP_TLS_CERT_FILE"
        )
    Server(
        target,
        factory=True,
        interface=Interfaces.ASGI,
        address="127.0.0.1" if settings.http_host == "localhost" else settings.http_host,
        port=settings.http_port,
        workers=1,
        loop=Loops.uvloop,
        # Not `auto`: to tell HTTP/2 from HTTP/1 it waits for a client's first bytes without an end.
        http=HTTPModes.http1,
        websockets=False,
        backpressure=settings.http_connections_max,
        log_enabled=settings.log_level == "debug",
        # What it has to say goes the way of all other lines.
        log_dictconfig={"loggers": {"_granian": {}}},
        http1_settings=HTTP1Settings(
            header_read_timeout=_HEADER_TIMEOUT_S * 1000, max_buffer_size=_HEADERS_BYTES
        ),
        ssl_cert=Path(settings.http_tls_cert_file) if tls else None,
        ssl_key=Path(settings.http_tls_key_file) if tls else None,
        ssl_protocol_min=SSLProtocols.tls12,
        workers_kill_timeout=30,
    ).serve()


def _check_tls(settings: Settings) -> bool:
    """Tell whether to serve HTTPS. Raises SettingsError where that cannot be done as set."""
    if bool(settings.http_tls_cert_file) != bool(settings.http_tls_key_file):
        raise SettingsError(
            "set both FLEETWATT_HTTP_TLS_CERT_FILE and FLEETWATT_HTTP_TLS_KEY_FILE, or none of them"
        )
    if not settings.http_tls_cert_file:
        return False
    _check_pem("FLEETWATT_HTTP_TLS_CERT_FILE", settings.http_tls_cert_file, b"CERTIFICATE-----")
    _check_pem("FLEETWATT_HTTP_TLS_KEY_FILE", settings.http_tls_key_file, b"PRIVATE KEY-----")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.http_tls_cert_file,
            settings.http_tls_key_file,
            password="",  # none: a key with one is refused instead of asked about # nosec B106
        )
    except ssl.SSLError as error:
        raise SettingsError(
            "FLEETWATT_HTTP_TLS_CERT_FILE and FLEETWATT_HTTP_TLS_KEY_FILE are no certificate with its key: "
            f"{error.reason or 'they cannot be read as PEM'}"
        ) from None
    return True


def _check_pem(variable: str, file: str, wanted: bytes) -> None:
    """Raise SettingsError, naming the file, where it cannot be read or holds something else."""
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(f"{variable}={file!r} cannot be read: {error.strerror}") from None
    if wanted not in content:
        raise SettingsError(f"{variable}={file!r} holds no {wanted.decode().strip('-').lower()} in PEM")
    if b"-----BEGIN ENCRYPTED" in content or b"Proc-Type: 4,ENCRYPTED" in content:
        raise SettingsError(
            f"{variable}={file!r} has a password: give one without (openssl pkey -in FILE -out FILE)"
        )


def _check_port(settings: Settings) -> None:
    """Raise SettingsError where nothing can listen on that address."""
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    with socket.socket(family) as probe:
        # The server shares its port with whoever listens on it already: say so instead.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.http_host, settings.http_port))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {_bracketed(settings.http_host)}:{settings.http_port} ({error.strerror}): "
                "set FLEETWATT_HTTP_PORT to another port, or FLEETWATT_HTTP_HOST to another address"
            ) from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _allow_files(least: int) -> None:
    """Let a process open that many files: without one to spare the server spins instead of accepting."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= least:
        return
    if hard != resource.RLIM_INFINITY and hard < least:
        raise SettingsError(
            f"a process may open {hard} files (ulimit -n): too few for FLEETWATT_HTTP_CONNECTIONS_MAX, "
            f"which needs {least}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))


async def cut_stalled(settings: Settings) -> None:
    """Have the kernel cut connections on which the other side takes nothing, or is gone.

    The server waits without an end for a client to take its answer. What is set on the socket that listens
    holds for each connection that comes later; the server opens it in this process, and does not hand it out.
    """
    while not _set_user_timeout(settings):  # noqa: ASYNC110 - nobody tells us
        await asyncio.sleep(_LISTENER_POLL_S)
    # What came before that and was not accepted yet is in a moment.
    await asyncio.sleep(_ACCEPTED_S)
    _set_user_timeout(settings)


def _set_user_timeout(settings: Settings) -> bool:
    """Limit the time without progress, and what waits, on sockets of our port; tell whether one listens."""
    listening = False
    for entry in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError), ExitStack() as stack:
            descriptor = os.dup(int(entry.name))
            stack.callback(os.close, descriptor)
            found = socket.socket(fileno=descriptor)
            stack.callback(found.detach)
            if found.family not in {socket.AF_INET, socket.AF_INET6}:
                continue
            if found.getsockname()[1] == settings.http_port:
                found.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.http_stalled_timeout_s * 1000)
                )
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
                listening |= bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return listening
