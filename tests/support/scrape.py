"""Reading what a process tells Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 20


class Scraped(dict[str, float]):
    """Samples, each by its name and its labels in the order of their names: `name{a=1,b=2}`."""

    @classmethod
    def of(cls, text: str) -> Scraped:
        """Read what /metrics answers."""
        found = cls()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
        return found

    def starting(self, name: str) -> dict[str, float]:
        """Give the samples of one name by their labels, those that are zero left out."""
        start = name + "{"
        return {
            key.removeprefix(start).removesuffix("}"): value
            for key, value in self.items()
            if key.startswith(start) and value
        }


async def scrape(address: str) -> Scraped:
    """Ask a process for its metrics."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{address}/metrics")
        assert answer.status_code == 200, answer.text
        return Scraped.of(answer.text)


async def scrape_until(address: str, well: Callable[[Scraped], bool]) -> Scraped:
    """Ask again until what is told is as wanted; give it as it is when patience ends."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while not well(found := await scrape(address)) and loop.time() < deadline:
        await asyncio.sleep(0.05)
    return found
