"""What the deployment files say, for tests."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from service import paths

ROOT: Final = Path(paths.__file__).parents[1]
COMPOSE: Final = ROOT / "docker-compose.yml"
DOCKERFILE: Final = ROOT / "Dockerfile"
MAKE_SECRETS: Final = ROOT / "deploy/compose/make-secrets.sh"
ENGINE: Final = ("migrate", "api", "worker")


@cache
def compose() -> dict[str, Any]:
    """Give the compose file, merges resolved, variables at their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def service(name: str) -> dict[str, Any]:
    """Give what the compose file says of a service."""
    found: dict[str, Any] = compose()["services"][name]
    return found


def command(name: str) -> list[str]:
    """Give the words that a service's container starts with, after the image's own where it says nothing."""
    said = service(name)
    entry = said.get("entrypoint", ["fleetwatt"] if name in ENGINE else [])
    return [word.replace("$$", "$") for word in [*entry, *said.get("command", [])]]


@cache
def dockerfile() -> list[tuple[str, str]]:
    """Give the Dockerfile's instructions: each word and what follows, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    lines = [line for line in text.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]
