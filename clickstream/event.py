"""The one description of an event: every type, DDL and schema of the platform is derived from these two classes."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

MAX_EVENT_BYTES = 1 << 20
"""One event is at most 1 MiB, the classic size limit of a Kinesis record."""

MAX_DEPTH = 512
"""More arrays and objects in each other than this are no JSON to us, wherever they are: parsers have limits too, which
depend on how deep the caller's stack is, and a record must come to the same thing in the job and in a replay."""

EventName = Literal["Search", "AddToCart", "ViewContent", "Purchase"]
Identifier = Annotated[str, Meta(min_length=1, max_length=128)]
NonNegative = Annotated[float, Meta(ge=0)]
Percent = Annotated[float, Meta(ge=0, le=100)]
BigInt = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
IpAddress = Annotated[str, Meta(extra={"format": "ip"})]


class AdditionalData(Struct, gc=False):
    """What the event was about; stays nested in the lake."""

    time_on_data: NonNegative  # seconds
    percent_viewed: Percent
    product_id: BigInt
    price: NonNegative


class Event(Struct, gc=False):
    """One click as the client sent it. Timestamps are UTC, by the client's clock; unknown extra fields are ignored."""

    timestamp: datetime
    user_id: Identifier
    pixel_id: Identifier
    click_id: Identifier
    insertion_timestamp: datetime
    event_name: EventName
    user_ip: IpAddress
    additional_data: AdditionalData
