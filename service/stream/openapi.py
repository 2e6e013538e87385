"""What the OpenAPI document says of the stream."""

from __future__ import annotations

from typing import Final

from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Schema

from service.web.apidocs import BAD_PARAMETER, ID, STRING, Told, operation, problem

IDS_MAX: Final = 100
_IDS: Final = Schema(type=OpenAPIType.ARRAY, items=ID, max_items=IDS_MAX)
_KIND: Final = Schema(type=OpenAPIType.STRING, enum=["vehicle", "meter", "vehicle,meter", "meter,vehicle"])
_EXAMPLE: Final = """\
retry: 2000

event: hello
data: {"time":"2026-01-31T12:00:00Z","asOf":"2026-01-31T12:00:00Z"}

event: states
data: {"time":"2026-01-31T12:00:01Z","vehicles":[{"vehicleId":"VH-0001","soc":63.5,"kwhDeliveredDc":0.572,\
"batteryTemp":28.4,"timestamp":"2026-01-31T12:00:00Z","lastUpdated":"2026-01-31T12:00:00.512Z"}],"meters":[]}

event: beat
data: {"time":"2026-01-31T12:00:11Z","asOf":"2026-01-31T12:00:10Z"}
"""

STREAM: Final = operation(
    {
        "200": OpenAPIResponse(
            description="Events, until either side ends it",
            content={"text/event-stream": OpenAPIMediaType(schema=STRING, example=_EXAMPLE)},
        ),
        "400": BAD_PARAMETER,
        "503": problem(
            "The database is away, or as many streams are open as there may be (too_many_streams): "
            "try again after Retry-After seconds"
        ),
    },
    parameters={
        "kind": Told("Which kind of devices; both unless asked", _KIND),
        "vehicleId": Told("Only these vehicles, and the meters that are named; may be repeated", _IDS),
        "meterId": Told("Only these meters, and the vehicles that are named; may be repeated", _IDS),
    },
)
