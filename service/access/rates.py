"""How often: requests a second by one key, and refused requests a minute from one address.

Counted in this process alone, over windows that slide.
"""

from __future__ import annotations

import ipaddress
import math
from secrets import token_bytes
from time import time
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

REFUSED_A_MINUTE: Final = 60
# Addresses share counters, so that many of them cannot fill memory.
_ADDRESS_COUNTERS: Final = 1024


class Rates:
    """Counts requests. `a_second` is what one key may make; 0 for any number."""

    def __init__(self, a_second: int) -> None:
        self._key_item = RateLimitItemPerSecond(a_second) if a_second else None
        self._refused_item = RateLimitItemPerMinute(REFUSED_A_MINUTE)
        self._keys = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._refused = SlidingWindowCounterRateLimiter(MemoryStorage())
        # Not to be foreseen, so that nobody can pick an address that uses up somebody else's counter.
        self._salt = int.from_bytes(token_bytes(8))

    async def wait_of_key_s(self, key_id: str) -> int:
        """Count a request by a key; 0, or when it may come again (s) where that was one too many."""
        if self._key_item is None or await self._keys.hit(self._key_item, key_id):
            return 0
        return await _wait_s(self._keys, self._key_item, key_id)

    async def wait_of_address_s(self, address: str) -> int:
        """Tell, without counting, when an address may be refused again (s); 0 for right now."""
        counter = self._counter(address)
        if await self._refused.test(self._refused_item, counter):
            return 0
        return await _wait_s(self._refused, self._refused_item, counter)

    async def count_refused(self, address: str) -> None:
        """Count a refusal."""
        await self._refused.hit(self._refused_item, self._counter(address))

    def _counter(self, address: str) -> str:
        return str(hash((self._salt, network_of(address))) % _ADDRESS_COUNTERS)


def network_of(address: str) -> str:
    """Give what one client is likely to have of addresses: the address itself, of IPv6 its /64."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ipaddress.ip_network((known, 64), strict=False))
    return str(known)


async def _wait_s(limiter: SlidingWindowCounterRateLimiter, item: RateLimitItem, name: str) -> int:
    window = await limiter.get_window_stats(item, name)
    return max(1, math.ceil(window.reset_time - time()))
