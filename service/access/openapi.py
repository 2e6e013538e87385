"""What the OpenAPI document says of sign-ins."""

from __future__ import annotations

from typing import Final

from litestar import Litestar
from litestar.enums import HttpMethod
from litestar.openapi.spec import (
    Example,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    PathItem,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.routes import HTTPRoute

from service.access.sign_ins import COOKIE, SECURE_COOKIE
from service.web.apidocs import (
    BOOLEAN,
    DATABASE_AWAY,
    STRING,
    TIME,
    UNREAD,
    an_array,
    an_object,
    json_answer,
    one_of,
    operation,
    or_null,
    problem,
)
from service.web.principal import READ, SCOPES
from service.web.problems import Problem

_SCHEME: Final = "signIn"
_COOKIE_SET: Final = OpenAPIHeader(
    schema=STRING, description=f"The cookie {COOKIE}, over TLS {SECURE_COOKIE}: HttpOnly, SameSite=Strict"
)
_TOO_MANY: Final = problem("Too many requests: come back after Retry-After seconds")
_BAD_KEY: Final = problem(
    "The key is not a good one (bad_key, revoked_key, expired_key)",
    Problem(
        401, "bad_key", "the key is not one that this service knows: send a key", title="A good key is needed"
    ),
)

SIGN_IN: Final = operation(
    {
        "204": OpenAPIResponse(description="Signed in", headers={"Set-Cookie": _COOKIE_SET}),
        "400": problem("The body is not valid"),
        "401": _BAD_KEY,
        "403": problem("The key may not read, or a page of another origin sent it"),
        **UNREAD,
        "429": _TOO_MANY,
        "503": DATABASE_AWAY,
    },
    RequestBody(
        required=True,
        content={
            "application/json": OpenAPIMediaType(
                schema=Schema(
                    type=OpenAPIType.OBJECT,
                    properties={"key": Schema(type=OpenAPIType.STRING, description="fw_...")},
                    required=["key"],
                    additional_properties=False,
                ),
                examples={"key": Example(value={"key": "fw_abcdefghijkl_" + "x" * 43})},
            )
        },
    ),
)
SIGN_OUT: Final = operation(
    {
        "204": OpenAPIResponse(description="Signed out, or there was nothing to end"),
        "403": problem("A page of another origin sent it"),
        "503": DATABASE_AWAY,
    }
)
ME: Final = operation(
    {
        "200": json_answer(
            an_object(
                "WhoAsks",
                keysRequired=BOOLEAN,
                signedIn=BOOLEAN,
                name=or_null(STRING),
                scopes=an_array(one_of(*SCOPES)),
                expiresAt=or_null(TIME),
            ),
            "Who asks",
        ),
        "401": _BAD_KEY,
        "429": _TOO_MANY,
        "503": DATABASE_AWAY,
    }
)


def tell_where_sign_ins_count(app: Litestar) -> None:
    """Add the cookie to each operation that it opens: those that only read."""
    document = app.openapi_schema
    if document.components.security_schemes is not None:
        document.components.security_schemes[_SCHEME] = SecurityScheme(
            type="apiKey",
            name=COOKIE,
            security_scheme_in="cookie",
            description=f"Set by POST /v1/sign-in, over TLS as {SECURE_COOKIE}; opens what `read` does",
        )
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        item = (document.paths or {}).get(route.path_format)
        for handler in route.route_handlers:
            reads = handler.opt.get("need") == READ and HttpMethod.GET in handler.http_methods
            if isinstance(item, PathItem) and item.get and item.get.security and reads:
                # The same list stands on others, too.
                item.get.security = [*item.get.security[:-1], {_SCHEME: []}, *item.get.security[-1:]]
