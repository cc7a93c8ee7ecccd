"""Offers as they come out of the stream, and which of them were met before."""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from clickstream.event import BigInt, EventName, Identifier, NonNegative, Percent

REMEMBERED: Final = 100_000  # ids of offers, about 16 MB: as far apart as two copies of an offer may be


class Offer(Struct, gc=False):
    """A product somebody looked at for long, as the job puts it into the stream; the copies of one share `offer_id`."""

    timestamp: datetime
    event_name: EventName
    percent_viewed: Percent
    product_id: BigInt
    price: NonNegative
    user_id: Identifier
    click_id: Identifier
    offer_id: Annotated[str, Meta(pattern="^[!-~]{1,128}$")]  # fit to be an HTTP header


_OFFER: Final = msgspec.json.Decoder(Offer)
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, ValueError)  # ValueError: an integer of thousands of digits


def read_offer(data: bytes) -> Offer | None:
    """Read a record of the offers stream; None if it is something else."""
    try:
        data.decode()  # unknown fields are passed on, and not looked into otherwise
        return _OFFER.decode(data)
    except _UNREADABLE:
        return None


def as_json(data: bytes) -> bytes:
    """Write an offer on one line, with whatever fields it has."""
    return msgspec.json.format(data, indent=-1)


@dataclass(slots=True)
class Seen:
    """The ids of the last offers; a copy of an older one counts as new."""

    most: int = REMEMBERED
    ids: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def __contains__(self, offer_id: str) -> bool:
        if offer_id not in self.ids:
            return False
        self.ids.move_to_end(offer_id)
        return True

    def add(self, offer_id: str) -> None:
        """Remember one more, and forget the one that was met longest ago if there are too many."""
        self.ids[offer_id] = None
        if len(self.ids) > self.most:
            self.ids.popitem(last=False)
