"""What commands share that ask the database themselves: connections, and what goes wrong in words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import psycopg
import psycopg_pool

from service import db, log
from service.cli.options import client_settings
from service.db import ReadPool
from service.errors import NO_SCHEMA, DatabaseUnavailableError, FleetwattError, no_answer, no_schema
from service.settings import Settings
from service.web.problems import Problem

T = TypeVar("T")

_CONNECTIONS: Final = 2


def with_pool(data_dir: Path | None, work: Callable[[ReadPool, Settings], Awaitable[T]]) -> T:
    """Do something with a small pool, and give what comes of it.

    Raises FleetwattError for what the engine refuses (Problem) and for a database without its tables,
    DatabaseUnavailableError for one that does not answer.
    """
    settings = client_settings(data_dir)
    log.configure(settings.log_level, settings.log_format)

    async def run() -> T:
        pool = db.read_pool(settings, most=_CONNECTIONS)
        try:
            await pool.open(wait=True, timeout=10.0)
            return await work(pool, settings)
        finally:
            await pool.close()

    try:
        return asyncio.run(run())
    except Problem as problem:
        raise FleetwattError(problem.detail) from None
    except (psycopg_pool.PoolTimeout, TimeoutError):
        raise DatabaseUnavailableError("the database does not answer") from None
    except psycopg.OperationalError as error:
        raise no_answer(error) from None
    except NO_SCHEMA:
        raise no_schema() from None
