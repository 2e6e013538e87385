"""For whom a request is meant, and from which page it comes: what keeps web pages of others out.

A browser lets any page send requests to loopback. A name of its own that it lets point there makes them look
like requests to its own site (DNS rebinding), so the Host of a request must be one of ours. And a page may
post elsewhere without asking, so what would change something must not come from a page of another origin.
"""

from __future__ import annotations

from typing import Final

from litestar.config.cors import CORSConfig

from service.loopback import is_loopback
from service.settings import Settings

_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REMEMBERED: Final = 1000


def split_list(text: str) -> list[str]:
    """Give the parts of a comma-separated setting."""
    return [part.lower() for part in text.split(",") if part]


def host_name(authority: str) -> str:
    """Give the host of host[:port], in small letters."""
    host, colon, port = authority.lower().rpartition(":")
    return host.removesuffix(".") if colon and port.isdigit() else authority.lower().removesuffix(".")


class Hosts:
    """Which hosts and origins are ours: any host, where none is set and we listen beyond loopback."""

    def __init__(self, settings: Settings) -> None:
        named = split_list(settings.http_hosts)
        self._names = frozenset(named)
        self._origins = frozenset(split_list(settings.http_cors_origins))
        self._any = not named and not is_loopback(settings.http_host)
        self._ours = frozenset({*named, *_LOOPBACK, settings.http_host.lower()})
        self._verdicts: dict[bytes, bool] = {}

    def serves(self, host: bytes) -> bool:
        """Tell whether a request with this Host is for us. Browsers always send one."""
        if self._any or not host:
            return True
        verdict = self._verdicts.get(host)
        if verdict is None:
            verdict = host_name(host.decode("latin-1")) in self._ours
            if len(self._verdicts) < _REMEMBERED:
                self._verdicts[host] = verdict
        return verdict

    def trusts(self, method: str, host: bytes, origin: bytes, site: bytes) -> bool:
        """Tell whether a page of this origin may send such a request; `site` is the browser's own word."""
        if not origin or method in _SAFE_METHODS or site == b"same-origin":
            return True
        text = origin.decode("latin-1").lower()
        authority = text.partition("://")[2]
        return (
            text in self._origins
            or authority.encode("latin-1") == host.lower()
            or host_name(authority) in self._names
        )


def cors(settings: Settings) -> CORSConfig | None:
    """Give what pages of other origins may do; None where no origin is set: they may read nothing."""
    origins = split_list(settings.http_cors_origins)
    if not origins:
        return None
    return CORSConfig(
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["authorization", "x-api-key", "content-type", "content-encoding"],
        expose_headers=["retry-after"],
        max_age=600,
    )
