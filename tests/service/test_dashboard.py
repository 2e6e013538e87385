"""The dashboard's pages and what they load: types, packing, caching, policy, weight, the wheel."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import httpx
import pytest

from service.dashboard import files
from service.settings import Settings
from tests.support.strategies import problem, serving

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

# No database: pages hold no data.
NOWHERE: Final = Settings(database_url="postgresql://127.0.0.1:1/none", http_auth="keys")
ROOT: Final = Path(__file__).parents[2]
ASSETS: Final = ROOT / "service/dashboard/assets"
PAGES: Final = {
    "/": "Fleet",
    "/vehicles/VH-001": "Vehicle",
    "/meters/METER:1": "Meter",
    "/alerts": "Alerts",
    "/engine": "Engine",
    "/sign-in": "Sign in",
}
TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MISSING: Final = (
    "/assets/", "/assets/nothing.js", "/assets/x/nothing.js", "/assets/../http.py", "/assets/%2e%2e/http.py",
    "/assets/..%2fhttp.py", "/assets/..%2f..%2fapp.py", "/assets/%2fetc%2fpasswd", "/assets/x/..%2fhttp.py",
    "/assets/pages/fleet.html", "/assets/fleet.html", "/assets/a/b/base.css", "/assets/base.css%00",
    "/assets/http.py", "/assets/__pycache__", "/vehicles/", "/vehicles/a/b", "/meters",
)  # fmt: skip
# Of what a page loads before a chart is drawn; the database's answers come on top.
_WIRE_BYTES_MAX: Final = 100_000


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a service that asks for keys and has no database."""
    async with serving(NOWHERE) as found:
        yield found


class _Page(HTMLParser):
    """What a page holds: elements in order, and texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._tag = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._tag = ""

    def handle_data(self, data: str) -> None:
        if self._tag in {"script", "style"}:
            self.inline += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def loads(self) -> list[str]:
        """Every address that a browser fetches for the page by itself."""
        named = [element.get("src") for tag in ("script", "img") for element in self.all(tag)]
        return [each for each in [*named, *(link.get("href") for link in self.all("link"))] if each]


async def _page(client: httpx.AsyncClient, path: str) -> _Page:
    return _Page((await client.get(path)).text)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_needs_no_key_and_no_database(client: httpx.AsyncClient, path: str) -> None:
    """Each page is HTML, the same for everybody, packed where a browser takes that, and asked for anew."""
    response = await client.get(path, headers={"accept-encoding": "gzip"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["cache-control"] == "no-cache"
    assert f"<title>{PAGES[path]} · fleetwatt</title>" in response.text
    plain = await client.get(path, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == response.text
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == response.headers["etag"]


@pytest.mark.parametrize("path", PAGES)
async def test_the_policy_of_a_page(client: httpx.AsyncClient, path: str) -> None:
    """Nothing inline, nothing from elsewhere, no form is sent, nobody may frame it."""
    response = await client.get(path)
    policy = dict(
        each.strip().split(" ", 1) for each in response.headers["content-security-policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        **dict.fromkeys(("script-src", "style-src", "img-src", "connect-src"), "'self'"),
        **dict.fromkeys(("frame-ancestors", "base-uri", "form-action"), "'none'"),
    }
    page = _Page(response.text)
    assert page.inline == ""
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)


@pytest.mark.parametrize("path", PAGES)
async def test_what_a_page_names_is_there(client: httpx.AsyncClient, path: str) -> None:
    """All that a page loads comes from here, named under a digest; its links lead somewhere."""
    page = await _page(client, path)
    assert len(page.loads) > 5
    for address in page.loads:
        assert address.startswith(f"/assets/{files.build()}/"), address
        assert (await client.get(address)).status_code == 200, address
    assert all("alt" in picture for picture in page.all("img"))
    [html] = page.all("html")
    assert html["lang"] == "en"
    assert (await client.head(html["data-plotly"] or "")).status_code == 200
    for link in page.all("a"):
        address = link.get("href") or ""
        assert address.startswith(("#", "/")), address
        if address.startswith("/"):
            assert (await client.get(address)).status_code == 200, address


@pytest.mark.parametrize("path", PAGES)
async def test_modules_are_asked_for_at_once(client: httpx.AsyncClient, path: str) -> None:
    """A page names every module that its own one leads to: none is found only once another has come."""
    page = await _page(client, path)
    [own] = [each["src"] for each in page.all("script") if each.get("type") == "module"]
    named = {(own or "").rpartition("/")[2]}
    named |= {
        (link["href"] or "").rpartition("/")[2] for link in page.all("link") if link["rel"] == "modulepreload"
    }
    for name in named:
        text = (ASSETS / name).read_text()
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= named, name
        assert "import(" not in text, name


async def test_hooks_are_listed_and_there(client: httpx.AsyncClient) -> None:
    """The comment at the head of each page lists the hooks of tests; each is in the page or in a module."""
    modules = "".join(path.read_text() for path in ASSETS.glob("*.js"))
    frame = (ROOT / "service/dashboard/pages/frame.html").read_text()
    for path in PAGES:
        text = (await client.get(path)).text
        for hook in {
            attributes["data-test"] for _, attributes in _Page(text).elements if "data-test" in attributes
        }:
            comments = " ".join(re.findall(r"<!--(.*?)-->", text, re.DOTALL))
            assert re.search(rf"\b{hook}\b", comments), (path, hook)
    for hook in (
        "retry",
        "empty",
        "vehicle-row",
        "session-row",
        "alert-row",
        "chart-energy",
        "chart-voltage",
    ):
        assert hook in modules + frame, hook


async def test_assets(client: httpx.AsyncClient) -> None:
    """Each has its type, is packed, and is kept for good under the digest, else as long as it is the same."""
    for folder, caching in (
        (f"{files.build()}/", "public, max-age=31536000, immutable"),
        ("", "no-cache"),
        ("0123456789ab/", "no-cache"),
    ):
        for path in ASSETS.iterdir():
            await _check_asset(client, f"/assets/{folder}{path.name}", path.read_bytes(), caching)


async def _check_asset(client: httpx.AsyncClient, address: str, content: bytes, caching: str) -> None:
    response = await client.get(address, headers={"accept-encoding": "br, gzip;q=0.5"})
    assert response.status_code == 200
    assert response.content == content
    assert response.headers["content-type"].partition(";")[0] == TYPES[Path(address).suffix]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.headers["cache-control"] == caching
    etag = response.headers["etag"]
    for sent, status in ((etag, 304), (f'"x", {etag}', 304), ("*", 304), ('W/"other"', 200), ("", 200)):
        again = await client.get(address, headers={"if-none-match": sent})
        assert again.status_code == status, sent
        assert again.headers["etag"] == etag
        assert (again.content == b"") == (status == 304)


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("GZIP", True), ("*", True), ("br", False), ("gzip;q=0", False), ("gzip;q=0, *", False),
     ("", False), ("identity, *;q=0", False), ("gzip;q=x", False), ("deflate, gzip;q=0.001", True)],
)  # fmt: skip
async def test_packed_only_where_taken(client: httpx.AsyncClient, accepted: str, packed: bool) -> None:
    """A client that does not take gzip gets the plain bytes."""
    response = await client.get("/assets/base.css", headers={"accept-encoding": accepted})
    assert ("content-encoding" in response.headers) == packed
    assert response.content == (ASSETS / "base.css").read_bytes()


async def test_plotly(client: httpx.AsyncClient) -> None:
    """Its script has its version in its name, is packed once, and kept by browsers for good."""
    name = files.plotly_name()
    assert re.fullmatch(r"plotly-\d[\w.]*\.min\.js", name)
    response = await client.get(f"/assets/{name}", headers={"accept-encoding": "gzip"})
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["content-type"].partition(";")[0] == "text/javascript"
    assert int(response.headers["content-length"]) < 1_700_000
    assert response.text.startswith("/**\n* plotly.js v")
    assert files.plotly() is files.plotly()
    assert (
        await client.get(f"/assets/{name}", headers={"if-none-match": response.headers["etag"]})
    ).status_code == 304
    problem(await client.get("/assets/plotly-0.0.0.min.js"), 404, "not_found")


async def test_what_is_not_there(client: httpx.AsyncClient) -> None:
    """Only assets are given, by their names; nothing leads out of their folder."""
    for path in MISSING:
        problem(await client.get(path), 404)


def test_the_weight_of_the_fleet_page() -> None:
    """All that the fleet's page loads before its data is light."""
    named = ["base.css", "parts.css", "theme.js", "mark.svg", "fleet.js", *files.imported("fleet.js")]
    sizes = {name: len(files.assets()[name].packed) for name in named}
    assert sum(sizes.values()) + len(files.pages()["fleet"].packed) < _WIRE_BYTES_MAX, sizes
    assert "charts.js" not in named
    for module in ("alerts.js", "engine.js", "sign_in.js"):
        assert "charts.js" not in files.imported(module), module


def test_no_other_host_and_nothing_unsafe() -> None:
    """No asset names another host, evaluates text, makes markup of text, or keeps what it should not."""
    found = [*ASSETS.iterdir(), *(ROOT / "service/dashboard/pages").iterdir()]
    assert len(found) > 35
    for path in found:
        text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        text = text.replace('const SVG = "http://www.w3.org/2000/svg";', "")
        assert not re.search(r"https?://|[\"'(]//\w|@import|url\(", text), path.name
        assert not re.search(
            r"\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write", text
        )
        assert not re.search(r"sessionStorage|indexedDB|document\.cookie", text), path.name
        if path.name not in {"theme.js", "frame.js"}:
            assert "localStorage" not in text, path.name
        assert text.count("\n") <= 310, path.name


def test_packing_takes_back() -> None:
    """What is packed is what is in the file, and the same at each start."""
    for name, file in files.assets().items():
        content = (ASSETS / name).read_bytes()
        assert gzip.decompress(file.packed) == file.content() == content
        assert files.File.of(name, content) == file


def test_pages_travel_in_the_wheel(tmp_path: Path) -> None:
    """An installed fleetwatt has pages and assets: hatch puts them into the wheel."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("service/dashboard/")}
    wanted = {
        f"service/dashboard/{path.relative_to(ROOT / 'service/dashboard')}"
        for folder in ("assets", "pages")
        for path in (ROOT / "service/dashboard" / folder).iterdir()
    }
    assert wanted <= packed
