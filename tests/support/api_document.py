"""The OpenAPI document as the API page uses it: requests made of its examples, answers held against it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
from jsonschema_rs import Draft202012Validator

METHODS = ("get", "put", "post", "delete", "patch")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


class Try(NamedTuple):
    """A request as "Try it out" makes it of one example."""

    name: str
    method: str
    path: str
    params: dict[str, Any]
    content: bytes | None
    headers: dict[str, str]

    async def send(self, client: httpx.AsyncClient, **more: str) -> httpx.Response:
        """Send it; `more` are further headers, with _ for -."""
        headers = self.headers | {name.replace("_", "-"): value for name, value in more.items()}
        return await client.request(
            self.method, self.path, params=self.params, content=self.content, headers=headers
        )


class Operation(NamedTuple):
    """One operation of a document."""

    document: dict[str, Any]
    method: str
    path: str
    said: dict[str, Any]

    @property
    def name(self) -> str:
        """Give it as docs write it."""
        return f"{self.method.upper()} {self.path}"

    @property
    def asks_for_a_key(self) -> bool:
        """Tell whether it does where keys are on."""
        return bool(self.said.get("security"))

    @property
    def media(self) -> dict[str, Any]:
        """Give the media types of its body."""
        content: dict[str, Any] = self.said.get("requestBody", {}).get("content", {})
        return content

    def tries(self) -> Iterator[Try]:
        """Give a request for each example of its body, or one; parameters have what the page fills in."""
        path, params = self.path, {}
        for parameter in self.said.get("parameters", []):
            if "example" in parameter:
                if parameter["in"] == "path":
                    path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter["example"])))
                else:
                    params[parameter["name"]] = parameter["example"]
        if not self.media:
            yield Try(self.name, self.method, path, params, None, {})
        for media_type, media in self.media.items():
            examples = media.get("examples") or {"": {"value": media["example"]}}
            for title, example in examples.items():
                value = example["value"]
                content = (value if isinstance(value, str) else json.dumps(value)).encode()
                headers = {"content-type": media_type}
                yield Try(f"{self.name} {title}", self.method, path, params, content, headers)

    def check(self, response: httpx.Response) -> None:
        """Hold an answer against what is said of its status: media type, headers, body."""
        status = str(response.status_code)
        assert status in self.said["responses"], f"{self.name} answered {status}: {response.text}"
        told = self.said["responses"][status]
        for name, header in told.get("headers", {}).items():
            if header.get("required"):
                self.valid(header["schema"], response.headers[name])
        if "content" not in told:
            assert response.content == b""
            return
        kind = response.headers["content-type"].partition(";")[0]
        schema = told["content"][kind]["schema"]
        self.valid(schema, response.json() if kind.endswith("json") else response.text)

    def valid(self, schema: dict[str, Any], value: Any) -> None:
        """Hold a value against a schema of the document."""
        whole = {**schema, "components": self.document["components"]}
        validator = Draft202012Validator(whole, validate_formats=True)
        errors = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(value)]
        assert errors == [], (self.name, errors)


def operations(document: dict[str, Any]) -> list[Operation]:
    """List the operations of a document."""
    return [
        Operation(document, method, path, item[method])
        for path, item in sorted(document["paths"].items())
        for method in METHODS
        if method in item
    ]


def times(value: Any) -> Iterator[str]:
    """Give every moment in a JSON value."""
    yield from (found[0] for found in _TIME.finditer(json.dumps(value)))
