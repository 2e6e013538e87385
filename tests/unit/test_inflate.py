"""Unpacking gzip: whole members only, and never more than was allowed."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.web.inflate import inflate
from service.web.problems import Problem
from tests.support.strategies import pure

MIB = 1024 * 1024


def unpacked(body: bytes, max_decoded: int) -> bytes:
    """Unpack to the end."""
    return b"".join(inflate(body, max_decoded))


def refused(body: bytes, max_decoded: int = 1000) -> Problem:
    """Unpack what must be refused."""
    with pytest.raises(Problem) as caught:
        unpacked(body, max_decoded)
    return caught.value


@pure
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_members_are_joined(parts: list[bytes]) -> None:
    """One member or several, empty ones among them: the body is all of them in order."""
    whole = b"".join(parts)
    assert unpacked(b"".join(map(gzip.compress, parts)), len(whole)) == whole


def test_the_limit_itself_is_fine() -> None:
    """A body of exactly the limit is taken; one byte more is too large, in one member or over several."""
    assert unpacked(gzip.compress(bytes(1000)), 1000) == bytes(1000)
    for body in (gzip.compress(bytes(1001)), gzip.compress(bytes(600)) + gzip.compress(bytes(401))):
        problem = refused(body)
        assert (problem.status, problem.code) == (413, "too_large")


@pytest.mark.parametrize("members", [1, 8])
def test_a_bomb_is_not_unpacked(members: int) -> None:
    """What would fill 256 MiB stops at the limit: memory stays near it."""
    bomb = gzip.compress(bytes(256 * MIB // members), compresslevel=1) * members
    tracemalloc.start()
    try:
        problem = refused(bomb, MIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problem.status == 413
    assert peak < 8 * MIB


@pytest.mark.timeout(15)
def test_many_empty_members_are_no_way_to_stall() -> None:
    """A body of nothing but empty members costs work in proportion to its size, not to its square."""
    with suppress(Problem):  # a limit on members would do as well
        assert unpacked(gzip.compress(b"") * (8 * MIB // 20), 1000) == b""


@pytest.mark.parametrize("cut", [1, 5, 10, 12, 20, -1, -8])
def test_truncated(cut: int) -> None:
    """A body that ends before its gzip trailer does is refused, wherever it was cut."""
    problem = refused(gzip.compress(b'{"meterId": "m-1"}')[:cut])
    assert (problem.status, problem.code, problem.field) == (400, "bad_gzip", "content-encoding")


@pytest.mark.parametrize(
    "body",
    [b"{}", b"\x1f", b"\x1f\x8b\x08", bytes(100), zlib.compress(b"{}"), gzip.compress(b"{}", mtime=0)[::-1]],
)
def test_garbage(body: bytes) -> None:
    """What is no gzip is refused."""
    assert refused(body).code == "bad_gzip"


def test_a_damaged_member() -> None:
    """A wrong checksum is refused: part of a body is not a body."""
    body = bytearray(gzip.compress(b'{"meterId": "m-1"}'))
    body[-6] ^= 0xFF
    assert refused(bytes(body)).code == "bad_gzip"


def test_trailing_garbage() -> None:
    """Bytes after the last member that are no further member are refused."""
    for tail in (b"x", b"\x1f\x8b", b"{}", gzip.compress(b"{}")[:-3]):
        assert refused(gzip.compress(b"{}") + tail).code == "bad_gzip"


def test_nothing() -> None:
    """An empty body has nothing to unpack; decoding says what is wrong with it."""
    assert unpacked(b"", 1000) == b""
