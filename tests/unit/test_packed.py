"""Which answers are packed, and for whom."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from service.web.headers import takes_gzip
from service.web.packed import Packed

pytestmark = pytest.mark.anyio

BODY = b"[" + b",".join(b'{"vehicleId":"VH-%05d","soc":50}' % number for number in range(1000)) + b"]"


async def answer(
    accepted: str, kind: bytes, *bodies: bytes, **more: bytes
) -> tuple[dict[bytes, bytes], bytes]:
    """Send an answer through it; give the headers and the body that come out."""
    out: list[Any] = []

    async def send(message: Any) -> None:
        out.append(message)

    through = Packed.around(send, {"headers": [(b"accept-encoding", accepted.encode())]})
    length = b"%d" % sum(map(len, bodies))
    headers = [(b"content-type", kind), (b"content-length", length)]
    headers += [(name.replace("_", "-").encode(), value) for name, value in more.items()]
    await through({"type": "http.response.start", "status": 200, "headers": headers})
    for number, body in enumerate(bodies, start=1):
        await through({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})
    assert [message["type"] for message in out] == ["http.response.start"] + ["http.response.body"] * len(
        bodies
    )
    return dict(out[0]["headers"]), b"".join(message["body"] for message in out[1:])


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip;q=0.5", "*", "GZIP ; q=1"])
@pytest.mark.parametrize("kind", [b"application/json", b"text/javascript"])
async def test_large_text_is_packed(accepted: str, kind: bytes) -> None:
    """It says so, with the length that goes out, and caches learn what it depends on."""
    headers, body = await answer(accepted, kind, BODY)
    assert gzip.decompress(body) == BODY
    assert len(body) < len(BODY) / 4
    assert headers[b"content-length"] == b"%d" % len(body)
    assert (headers[b"content-encoding"], headers[b"vary"]) == (b"gzip", b"accept-encoding")


@pytest.mark.parametrize("accepted", ["", "br", "gzip;q=0", "identity, gzip; q=0.0"])
async def test_not_for_whom_does_not_take_it(accepted: str) -> None:
    """An answer goes out as it is to whoever does not ask for another form."""
    headers, body = await answer(accepted, b"application/json", BODY)
    assert body == BODY
    assert b"content-encoding" not in headers


@pytest.mark.parametrize(
    ("kind", "bodies", "more"),
    [
        (b"application/json", (BODY[:1000],), {}),
        (b"application/json", (BODY, BODY), {}),
        (b"image/png", (BODY,), {}),
        (b"text/event-stream; charset=utf-8", (BODY,), {}),
        (b"text/css", (BODY,), {"content_encoding": b"gzip"}),
    ],
)
async def test_not_what_is_not_worth_it(
    kind: bytes, bodies: tuple[bytes, ...], more: dict[str, bytes]
) -> None:
    """What is small, in pieces, packed already, or no text stays as it is."""
    headers, body = await answer("gzip", kind, *bodies, **more)
    assert body == b"".join(bodies)
    assert headers[b"content-length"] == b"%d" % len(body)
    assert headers.get(b"content-encoding") == more.get("content_encoding")


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, gzip;q=0.8", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("br, gzip; q=0.000", False),
    ],
)
async def test_who_takes_gzip(header: str, takes: bool) -> None:
    """As the client's header says."""
    assert takes_gzip(header) is takes
