"""Readings of devices that their sender's key is not for: refused one by one."""

from __future__ import annotations

from typing import Final

from service.ingest.decode import raw_part
from service.ingest.outcome import Decoded, Rejection
from service.ingest.shapes import SHAPES
from service.readings import kind_of
from service.web.principal import Principal

FOREIGN_DEVICE: Final = "foreign_device"


def refuse_foreign(decoded: Decoded, principal: Principal) -> bool:
    """Turn each reading that the key is not for into a rejection; tell whether there was any.

    Nothing happens where the key is not bound to devices.
    """
    if not principal.bound:
        return False
    own = []
    foreign = []
    for reading, index in zip(decoded.readings, decoded.indices, strict=True):
        kind = kind_of(reading)
        if principal.may_send(kind, reading.device_id):
            own.append((reading, index))
            continue
        foreign.append(
            Rejection(
                index=index,
                code=FOREIGN_DEVICE,
                message=f"the key is not for {kind} {reading.device_id!r}: a key may be bound to its devices",
                field=SHAPES[kind].id_name,
                kind=kind,
                device_id=reading.device_id,
                raw=raw_part(decoded, index),
            )
        )
    decoded.readings = [reading for reading, _ in own]
    decoded.indices = [index for _, index in own]
    decoded.rejections = sorted([*decoded.rejections, *foreign], key=lambda rejection: rejection.index)
    return bool(foreign)
