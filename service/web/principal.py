"""Who asks, and what a route needs: the words that routes, keys and handlers share."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request

from service.readings import Kind

# What a key may be made for.
INGEST: Final = "ingest"
READ: Final = "read"
ADMIN: Final = "admin"
SCOPES: Final = (INGEST, READ, ADMIN)
# Only what a route may need: nothing at all, or to write what tells whose energy it is (charging sessions).
PUBLIC: Final = "public"
SESSIONS: Final = "sessions"

_NEEDS: Final = frozenset({*SCOPES, PUBLIC, SESSIONS})
# On operations in the OpenAPI document; the empty one because a service without keys asks for none.
KEY_SECURITY: Final[list[dict[str, list[str]]]] = [{"apiKey": []}, {"apiKeyHeader": []}, {}]


def needs(need: str, *, database: bool = True) -> dict[str, Any]:
    """Give the `opt` of a route: what a caller needs. A route that declares nothing is closed.

    `database=False` is for what can be answered while the database is away: what was last known of a key
    then counts on.
    """
    if need not in _NEEDS:
        raise ValueError(f"{need!r} is nothing that a route can need")
    return {"need": need, "need_database": database}


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from. `key_id` is None where the service is open to all.

    `meter_ids` and `vehicle_ids` bind a key to devices; None on both leaves it free.
    """

    key_id: str | None = None
    scopes: frozenset[str] = frozenset()
    meter_ids: frozenset[str] | None = None
    vehicle_ids: frozenset[str] | None = None

    @property
    def bound(self) -> bool:
        """Tell whether it may send readings of some devices only."""
        return self.meter_ids is not None or self.vehicle_ids is not None

    def may_send(self, kind: Kind, device_id: str) -> bool:
        """Tell whether it may send readings of a device."""
        ids = self.meter_ids if kind == "meter" else self.vehicle_ids
        return not self.bound or (ids is not None and device_id in ids)

    def may(self, need: str | None) -> bool:
        """Tell whether it may use a route that needs this; None stands for a route that declares nothing."""
        if need == PUBLIC:
            return True
        if need not in _NEEDS:
            return False
        if ADMIN in self.scopes:
            return True
        if need == SESSIONS:
            return INGEST in self.scopes and not self.bound
        return need in self.scopes


# On a service without keys.
EVERYBODY: Final = Principal(scopes=frozenset(SCOPES))


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    """Give who a request comes from, as the guard found out."""
    principal: Principal = request.scope["auth"]
    return principal
