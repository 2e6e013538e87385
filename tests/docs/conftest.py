"""A shell with an engine of its own, in which commands of a page are run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import Block, Shell
from tests.support import servers


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Give a shell; whatever runs on its data folder is ended."""
    with servers.scratch_dir() as scratch:
        shell = Shell(tmp_path, scratch / "data")
        yield shell
        shell.run([Block("end", 0, "sh", "fleetwatt down || true", None)], {})
