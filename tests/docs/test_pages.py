"""Every page: its links lead somewhere, and its commands are run by a test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import PAGES, PROJECT, TASKS, blocks
from tests.docs.test_runbooks import PAGES as RUNBOOKS

# Where the commands of a page are run as they stand: a file that names the page.
RUN_BY: Final = {
    "README.md": "tests/docs/test_readme.py",
    "deploy/mosquitto/README.md": "tests/support/deployed_readme.py",
    "docs/backup.md": "tests/service/test_backup.py",
    "docs/install.md": "tests/deploy/test_install_page.py",
    "docs/bi.md": "tests/sql/test_bi_examples.py",
    **dict.fromkeys([f"docs/{task}.md" for task in TASKS], "tests/docs/pages.py"),
    **dict.fromkeys([page for page in RUNBOOKS if blocks(page, "sh", "sql")], "tests/docs/test_runbooks.py"),
}
# What no test can run here: a container engine, a cluster, a tool for backups, a newer extension, benchmarks,
# which take minutes. tests/deploy runs what is in the images.
NOT_RUN: Final = {
    "docs/containers.md": "docker compose",
    "docs/scaling.md": "docker compose|kubectl",
    "docs/backup.md": "pgbackrest",
    "docs/upgrading.md": "alter extension",
    "bench/README.md": "just bench",
}


def anchors(page: Path) -> set[str]:
    """Give what a link to a heading of a page may be."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """To a file of the project, and to a heading in it where one is named."""
    source = PROJECT / page
    text = re.sub(r"^```.*?^```", "", source.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (source.parent / path).resolve() if path else source
        assert file.exists(), target
        assert not heading or heading in anchors(file), target


def test_every_command_is_run() -> None:
    """A page with commands has a test that runs them, or a reason why nobody can here."""
    with_commands = {page for page in PAGES if blocks(page, "sh", "console", "sql")}
    assert with_commands == RUN_BY.keys() | NOT_RUN.keys()
    for page, test in RUN_BY.items():
        if page in RUNBOOKS:
            continue  # the list is that test's own
        told = (PROJECT / test).read_text()
        assert Path(page).name in told or Path(page).stem in told, page
    for page, words in NOT_RUN.items():
        for block in blocks(page, "console", *([] if page in RUN_BY else ["sh", "sql"])):
            assert re.search(words, block.text) or page in RUN_BY, block.name
