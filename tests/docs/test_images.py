"""Pictures in the docs: they are there, small enough to travel with the repository, and told in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
IMAGES: Final = ROOT / "docs" / "images"
_MOST_BYTES: Final = 100_000


def test_images() -> None:
    """Each is shown somewhere, with words for whoever cannot see it; none is missing, none is large."""
    shown: set[Path] = set()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text()):
            assert len(words) > 20, f"{page.name}: {target} is not told in words"
            shown.add((page.parent / target).resolve())
    assert shown == set(IMAGES.iterdir())
    for image in shown:
        assert image.read_bytes().startswith(b"\x89PNG"), image.name
        assert image.stat().st_size < _MOST_BYTES, image.name
