"""The short form of `just fuzz`: the same inputs on each machine, and new ones each time from hypothesis."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from service.ingest.decode import decode, decode_lines
from tests.fuzz import checks, limits, payloads
from tests.fuzz.targets import TARGETS, try_one
from tests.support.strategies import bad_readings, json_array, near_readings, pure, readings, torn_payloads

_INPUTS = 20_000


def test_inputs_by_number() -> None:
    """Nothing crashes, hangs, is lost between readings and refusals, or is taken against the contract."""
    seen = set()
    taken = refused = 0
    with limits.watchdog() as watch:
        for number in range(_INPUTS):
            watch()
            try:
                name, decoded = try_one(0, number)
            except Exception as error:
                error.add_note(f"just fuzz --seed 0 --only {number}")
                raise
            seen.add(name)
            taken += len(decoded.readings) if decoded else 0
            refused += len(decoded.rejections) if decoded else 0
    # The inputs are of use only if many are taken and many are not.
    assert seen == {target.__name__ for _, target in TARGETS}
    assert taken > _INPUTS / 10
    assert refused > _INPUTS / 10


@pure
@given(st.lists(readings | near_readings | bad_readings(), max_size=8).map(json_array) | torn_payloads())
def test_payloads_of_hypothesis(body: bytes) -> None:
    """The same must hold of payloads that hypothesis makes, and shrinks where one fails."""
    checks.check(decode(body, checks.RULE, max_readings=checks.MOST), body, None, None)
    checks.check(decode_lines(body, checks.RULE, max_readings=checks.MOST), body, None, None, lines=True)


@pure
@given(st.binary(max_size=200), st.integers(0, 2**32))
def test_any_bytes(body: bytes, seed: int) -> None:
    """And of any bytes at all, damaged or not."""
    for tried in (body, payloads.mutated(Random(seed), body)):
        checks.check(decode(tried, checks.RULE, kind="meter", topic_id="m-1"), tried, "meter", "m-1")
