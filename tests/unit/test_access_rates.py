"""Rates: how often a key may ask, and an address may be refused; many addresses take no more memory."""

from __future__ import annotations

from typing import Any

import pytest

from service.access.rates import REFUSED_A_MINUTE, Rates, network_of

pytestmark = pytest.mark.anyio


async def test_a_key_has_its_rate() -> None:
    """So many a second pass, one more has to wait; another key does not."""
    rates = Rates(100)
    waits = [await rates.wait_of_key_s("a") for _ in range(250)]
    assert waits[:100] == [0] * 100
    assert waits[-1] >= 1
    assert await rates.wait_of_key_s("b") == 0


async def test_without_a_rate_nobody_waits() -> None:
    """0 is any number, and nothing is counted."""
    rates = Rates(0)
    assert {await rates.wait_of_key_s("a") for _ in range(1000)} == {0}


async def test_an_address_may_be_refused_so_often() -> None:
    """Asking does not count, being refused does; then it has to wait, and no longer than two minutes."""
    rates = Rates(0)
    for _ in range(REFUSED_A_MINUTE):
        assert await rates.wait_of_address_s("192.0.2.1") == 0
        await rates.count_refused("192.0.2.1")
    assert 1 <= await rates.wait_of_address_s("192.0.2.1") <= 120


async def test_many_addresses_take_little_memory() -> None:
    """Ten thousand addresses share a thousand counters."""
    rates = Rates(0)
    for number in range(10_000):
        await rates.count_refused(f"10.0.{number // 256}.{number % 256}")
    held: Any = rates._refused.storage  # noqa: SLF001 - what it holds is the point
    assert len(held.storage) <= 2 * 1024
    assert len(held.locks) <= 2 * 1024


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_what_one_client_has_of_addresses(address: str, network: str) -> None:
    """Of IPv6 anybody has a /64: addresses within it are one client."""
    assert network_of(address) == network
