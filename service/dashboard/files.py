"""The files of the dashboard: read once, packed once, each with what tells it from another version."""

from __future__ import annotations

import gzip
import re
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files as resources
from string import Template
from typing import Final, NamedTuple

from service import __version__

_TYPES: Final = {
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
}
_IMPORT: Final = re.compile(r'^(?:import|export|\}).*?from "\./([\w.]+)";$', re.MULTILINE)
_MODULE: Final = re.compile(r"<!-- module: ([\w.]+) -->")
_TITLE: Final = re.compile(r"<!-- title: (.+?) -->")
_STYLE_ID: Final = re.compile(r'getElementById\("([0-9a-f]{64})"\)')
# 9 takes twice as long as 6 for plotly's script and saves 0.2 % of it.
_LEVEL: Final = 6


class File(NamedTuple):
    """What is served at an address. Only packed bytes are kept: nearly every client takes them."""

    packed: bytes
    media_type: str
    # Weak, since it stands for the packed bytes and the plain ones.
    etag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> File:
        """Pack a file; the end of its name tells its type."""
        packed = gzip.compress(content, _LEVEL, mtime=0)
        return cls(packed, _TYPES[name.rpartition(".")[2]], f'W/"{sha256(content).hexdigest()[:20]}"')

    def content(self) -> bytes:
        """Give it as it is."""
        return gzip.decompress(self.packed)


@cache
def assets() -> dict[str, File]:
    """Give style sheets, modules and pictures by name."""
    return {name: File.of(name, content) for name, content in _read("assets").items()}


@cache
def build() -> str:
    """Give the digest of all assets: pages name them under it, so that none is ever out of date."""
    digest = sha256()
    for name, file in sorted(assets().items()):
        digest.update(f"{name} {file.etag}\n".encode())
    return digest.hexdigest()[:12]


@cache
def pages() -> dict[str, File]:
    """Give the pages by name, each put into the frame that all have in common."""
    texts = {name: content.decode() for name, content in _read("pages").items()}
    frame = Template(texts.pop("frame.html"))
    return {
        name.removesuffix(".html"): File.of(name, _framed(frame, main).encode())
        for name, main in texts.items()
    }


def plotly_name() -> str:
    """Give the name of plotly's script, with its version."""
    return f"plotly-{version('plotly')}.min.js"


@cache
def plotly() -> File:
    """Give plotly's script; reading and packing it takes some tenths of a second, once."""
    return File.of(plotly_name(), plotly_script())


@cache
def plotly_styles() -> str:
    """Give the ids of styles that plotly's script adds to a page unless something there has that id already.

    They belong to maps, and a policy without inline styles has a browser complain of them.
    """
    return " ".join(sorted(set(_STYLE_ID.findall(plotly_script().decode()))))


def plotly_script() -> bytes:
    """Read plotly's script."""
    return (resources("plotly") / "package_data" / "plotly.min.js").read_bytes()


def _read(folder: str) -> dict[str, bytes]:
    found = resources("service.dashboard") / folder
    return {entry.name: entry.read_bytes() for entry in found.iterdir() if entry.is_file()}


def _framed(frame: Template, main: str) -> str:
    module, title = _MODULE.search(main), _TITLE.search(main)
    if module is None or title is None:
        raise ValueError("a page names its module and its title in comments")
    return frame.substitute(
        title=title[1],
        main=main,
        module=module[1],
        assets=f"/assets/{build()}",
        preloads="\n".join(
            f'<link rel="modulepreload" href="/assets/{build()}/{name}">' for name in imported(module[1])
        ),
        plotly=f"/assets/{plotly_name()}",
        plotly_styles=plotly_styles(),
        version=__version__,
    )


def imported(module: str) -> list[str]:
    """Give all modules that one needs, so that a browser asks for them at once and not one after another."""
    found: dict[str, None] = {}
    waiting = [module]
    while waiting:
        for name in _IMPORT.findall(assets()[waiting.pop()].content().decode()):
            if name not in found:
                found[name] = None
                waiting.append(name)
    return sorted(found)
