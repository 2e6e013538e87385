"""API keys as texts: made at random, taken apart strictly, compared whole; and who may do what."""

from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.key import Key, make, parse
from service.readings import Kind
from service.web.principal import (
    ADMIN,
    EVERYBODY,
    INGEST,
    PUBLIC,
    READ,
    SCOPES,
    SESSIONS,
    Principal,
    needs,
)

BASE64 = string.ascii_letters + string.digits + "_-"
keys = st.builds(
    Key,
    st.text(string.ascii_lowercase + string.digits, min_size=12, max_size=12),
    st.text(BASE64, min_size=43, max_size=43),
)


def test_made_keys_differ_and_can_be_read() -> None:
    """Each is one of its own, of the agreed form, and comes out of its text as it went in."""
    made = [make() for _ in range(200)]
    assert len({key.key_id for key in made}) == len({key.secret for key in made}) == 200
    for key in made:
        assert parse(key.text) == key
        assert len(key.text) == 3 + 12 + 1 + 43


@given(keys)
def test_whatever_the_secret_holds(key: Key) -> None:
    """A secret may hold underscores, also at its ends: the id has a fixed length, so both parts are found."""
    assert parse(key.text) == key
    assert key.matches(hashlib.sha256(key.secret.encode()).digest())
    assert key.secret not in repr(key)


@given(keys, st.integers(0, 58), st.characters())
def test_one_other_character_is_another_key_or_none(key: Key, place: int, character: str) -> None:
    """Nothing is forgiven: a key with one character replaced is no key, or does not match."""
    text = key.text[:place] + character + key.text[place + 1 :]
    other = parse(text)
    if text != key.text:
        assert other is None or other.key_id != key.key_id or not other.matches(key.sha256)


@given(st.text(max_size=80) | keys.map(lambda key: key.text + "\n") | keys.map(lambda key: " " + key.text))
def test_what_is_no_key(text: str) -> None:
    """Anything else is None, never an error: it comes from anybody."""
    assert parse(text) is None


def test_a_stored_hash_matches_only_its_secret() -> None:
    """The secret of another key does not match."""
    assert not make().matches(make().sha256)


@pytest.mark.parametrize(
    ("scopes", "bound", "allowed"),
    [
        ({INGEST}, False, {PUBLIC, INGEST, SESSIONS}),
        ({INGEST}, True, {PUBLIC, INGEST}),
        ({READ}, False, {PUBLIC, READ}),
        ({INGEST, READ}, True, {PUBLIC, INGEST, READ}),
        ({ADMIN}, False, {PUBLIC, INGEST, READ, ADMIN, SESSIONS}),
        (set(), False, {PUBLIC}),
    ],
)
def test_what_scopes_allow(scopes: set[str], bound: bool, allowed: set[str]) -> None:
    """Each scope opens what it says and no more; a key that is bound writes no sessions."""
    principal = Principal(scopes=frozenset(scopes), meter_ids=frozenset({"m-1"}) if bound else None)
    assert {need for need in (PUBLIC, *SCOPES, SESSIONS) if principal.may(need)} == allowed


def test_a_route_that_declares_nothing_is_closed() -> None:
    """Nobody may use it, not even where there are no keys: an oversight must show."""
    assert not EVERYBODY.may(None)
    assert not EVERYBODY.may("anything")
    assert all(EVERYBODY.may(need) for need in (PUBLIC, *SCOPES, SESSIONS))
    with pytest.raises(ValueError, match="anything"):
        needs("anything")


@pytest.mark.parametrize(
    ("meters", "vehicles", "sends"),
    [
        (None, None, {("meter", "m"), ("meter", "x"), ("vehicle", "m"), ("vehicle", "x")}),
        ({"m"}, None, {("meter", "m")}),
        (None, {"m"}, {("vehicle", "m")}),
        ({"m"}, {"x"}, {("meter", "m"), ("vehicle", "x")}),
        ({"m"}, set(), {("meter", "m")}),
    ],
)
def test_devices_bind(
    meters: set[str] | None, vehicles: set[str] | None, sends: set[tuple[str, str]]
) -> None:
    """An id counts for its own kind only; a kind without ids is closed once the other one has some."""
    principal = Principal(
        meter_ids=None if meters is None else frozenset(meters),
        vehicle_ids=None if vehicles is None else frozenset(vehicles),
    )
    kinds: tuple[Kind, ...] = ("meter", "vehicle")
    assert {(kind, one) for kind in kinds for one in ("m", "x") if principal.may_send(kind, one)} == sends
