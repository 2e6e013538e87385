"""Headers: of requests, and the security headers of every answer (what a browser may do with it)."""

from __future__ import annotations

from typing import Any, Final

Headers = tuple[tuple[bytes, bytes], ...]

_API_CSP: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
# The dashboard: our own modules and style sheets, and what they ask the API. No form is ever sent: a sign-in
# whose script did not load must not put a key into an address.
_DASHBOARD_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_DASHBOARD: Final = frozenset({"/", "/alerts", "/engine", "/sign-in"})
_DEVICES: Final = ("/vehicles/", "/meters/")
# Swagger UI: its own two scripts, its style sheet, and pictures that stand in the style sheet.
_PAGE_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
    # In place of the server's own, which tells what it is.
    "Server": "fleetwatt",
}
_HSTS: Final = {"Strict-Transport-Security": "max-age=31536000"}


class SecurityHeaders:
    """The headers of each kind of answer, made once."""

    def __init__(self, *, tls: bool) -> None:
        common = _ALWAYS | (_HSTS if tls else {})
        self._api = _encode({**common, "Content-Security-Policy": _API_CSP})
        self._dashboard = _encode({**common, "Content-Security-Policy": _DASHBOARD_CSP})
        self._page = _encode({**common, "Content-Security-Policy": _PAGE_CSP})

    def of(self, path: str) -> Headers:
        """Give the headers of what is at a path."""
        if path in {"/api", "/api/"}:
            return self._page
        return self._dashboard if path in _DASHBOARD or path.startswith(_DEVICES) else self._api


def header(scope: Any, name: bytes, otherwise: str = "") -> str:
    """Give a header of a request. The framework's mapping of all of them takes longer than the search."""
    for each, value in scope["headers"]:
        if each == name:
            return str(value, "latin-1")
    return otherwise


def takes_gzip(accept_encoding: str) -> bool:
    """Tell whether a client takes gzip (RFC 9110, 12.5.3): a weight of 0 means that it does not."""
    weights: dict[str, float] = {}
    for each in accept_encoding.lower().split(","):
        coding, _, parameter = each.partition(";")
        _, _, weight = parameter.partition("=")
        try:
            weights[coding.strip()] = float(weight) if weight.strip() else 1.0
        except ValueError:
            weights[coding.strip()] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _encode(headers: dict[str, str]) -> Headers:
    return tuple((name.lower().encode(), value.encode()) for name, value in headers.items())
