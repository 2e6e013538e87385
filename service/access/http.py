"""Routes of sign-ins: a browser shows a key once, asks who it is, and signs out."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation

from service.access import openapi
from service.access.guard import Guard
from service.access.store import StoredSignIn
from service.web.answers import answer, rfc3339
from service.web.bodies import read_json
from service.web.principal import EVERYBODY, PUBLIC, SCOPES, needs

AnyRequest = Request[Any, Any, Any]
# We made it: nothing to validate on each request.
InjectedGuard = NamedDependency[SkipValidation[Guard]]


class ShownKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key in a body."""

    key: str

    def __repr__(self) -> str:
        """Keep the key out of logs and tracebacks."""
        return "ShownKey(...)"


@post("/v1/sign-in", operation_class=openapi.SIGN_IN, summary="Sign a browser in with a key", status_code=204)
async def sign_in(request: AnyRequest, access: InjectedGuard) -> Response[None]:
    """Take {"key": "fw_..."} and set an HttpOnly cookie, with which the browser may read until it ends.

    The key must have the scope `read` or `admin`. The cookie gives `read` alone, through GET and HEAD. It
    ends after FLEETWATT_SIGN_IN_HOURS, with its key, or when the browser signs out.
    """
    shown = await read_json(request, ShownKey)
    cookie = await access.sign_in(request, shown.key)
    return Response(content=None, status_code=204, cookies=[cookie])


@post("/v1/sign-out", operation_class=openapi.SIGN_OUT, summary="Sign a browser out", status_code=204)
async def sign_out(request: AnyRequest, access: InjectedGuard) -> Response[None]:
    """End the sign-in whose cookie comes along, also for whoever has a copy; without one nothing happens."""
    return Response(content=None, status_code=204, cookies=await access.sign_out(request))


@get("/v1/me", operation_class=openapi.ME, summary="Who asks, and with what scopes")
async def me(request: AnyRequest, access: InjectedGuard) -> Response[bytes]:
    """Tell whether keys are required, and of the key that is sent or signed in with its name, scopes and end.

    `name` is null for whoever shows none; `scopes` are then all of them where no key is required, else none.
    """
    asking = await access.who(request)
    shown = asking.shown
    held = shown.principal if shown else None if asking.required else EVERYBODY
    return answer(
        {
            "keysRequired": asking.required,
            "signedIn": isinstance(shown, StoredSignIn),
            "name": shown and shown.name,
            "scopes": [scope for scope in SCOPES if held and scope in held.scopes],
            "expiresAt": rfc3339(shown.expires_at) if shown else None,
        }
    )


def router(guard: Guard) -> Router:
    """Give the routes of sign-ins, bound to a guard."""
    return Router(
        path="/",
        route_handlers=[sign_in, sign_out, me],
        dependencies={"access": Provide(lambda: guard, sync_to_thread=False)},
        tags=["Sign-in"],
        opt=needs(PUBLIC),
    )
