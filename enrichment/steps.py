"""The steps an event goes through, in order."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from clickstream.batch import Batch
from clickstream.errors import Unavailable
from clickstream.offer import write_timestamp
from clickstream.place import Status
from enrichment.answers import Answers

log = logging.getLogger(__name__)

Step = Callable[[Batch], Batch]

MAX_CLOCK_LEAD: Final = timedelta(minutes=5)
"""An access counts as no later than this after its arrival: one client in the year 3000 must not freeze its user."""


def enrichment(answers: Answers, accesses: "Accesses") -> tuple[Step, ...]:
    """List the steps. Last access comes last, since it keeps the place that the step before has found."""
    return (AddPlaceAndName(answers), KeepLastAccess(accesses))


@dataclass(frozen=True, slots=True)
class AddPlaceAndName:
    """Fill country, region, city and name; `geo_status` and `name_status` say how each row's look-ups ended.

    The two are one step because they are one round trip.
    """

    answers: Answers

    def __call__(self, batch: Batch) -> Batch:
        addresses, row_of_address = batch.distinct("user_ip")
        user_ids, row_of_user = batch.distinct("user_id")
        places, names = self.answers.find(addresses, user_ids)
        located = [places[address] for address in addresses]
        named = [names[user_id] for user_id in user_ids]

        def by_address(values: Sequence[str | None]) -> pa.Array:
            return pa.array(values, pa.string()).take(row_of_address)

        def by_user(values: Sequence[str | None]) -> pa.Array:
            return pa.array(values, pa.string()).take(row_of_user)

        return batch.adding(
            country=by_address([answer.value.country if answer.value else None for answer in located]),
            region=by_address([answer.value.region if answer.value else None for answer in located]),
            city=by_address([answer.value.city if answer.value else None for answer in located]),
            location=by_address([_location(answer.status, answer.value) for answer in located]),
            geo_status=by_address([answer.status for answer in located]),
            name=by_user([answer.value for answer in named]),
            name_status=by_user([answer.status for answer in named]),
        )


def _location(status: Status, place: object) -> str | None:
    """Write where a user is for Redis; None while it is not known whether it is known."""
    if status is Status.FOUND:
        return str(place)
    return "unknown" if status is Status.UNKNOWN else None


class Access(NamedTuple):
    """When a user was last seen, and where: `location` None leaves the one that is there."""

    user_id: str
    moment: str  # as `write_timestamp` writes it
    sequence_number: str
    location: str | None


class Accesses(Protocol):
    """Whoever keeps each user's newest access, by moment and then by sequence number, in whatever order they come."""

    def keep_newest(self, accesses: Sequence[Access]) -> None:
        """Keep those that are newer than what is there, in one round trip; doing it again changes nothing."""


@dataclass(frozen=True, slots=True)
class KeepLastAccess:
    """Tell Redis when each user of the batch was last seen, and where; adds no column.

    While Redis is down an access is not kept: the next one, or a replay, makes up for it.
    """

    accesses: Accesses

    def __call__(self, batch: Batch) -> Batch:
        newest = _newest(batch)
        try:
            if newest:
                self.accesses.keep_newest(newest)
        except Unavailable as down:
            log.warning("the last access of %d users is not kept: %s", len(newest), down)
        return batch


def _newest(batch: Batch) -> list[Access]:
    """Find each user's newest access in the batch."""
    lead = MAX_CLOCK_LEAD // timedelta(microseconds=1)
    latest = np.asarray(batch.origin["arrival_timestamp"].cast(pa.int64())) + lead
    moments = np.minimum(np.asarray(batch.columns["timestamp"].cast(pa.int64())), latest).tolist()
    sequence_numbers = batch.origin["sequence_number"].to_pylist()

    def newer(row: int, rival: int) -> bool:
        if moments[row] != moments[rival]:
            return bool(moments[row] > moments[rival])
        return int(sequence_numbers[row]) > int(sequence_numbers[rival])

    best: dict[str, int] = {}
    for row, event in enumerate(batch.events):
        rival = best.get(event.user_id)
        if rival is None or newer(row, rival):
            best[event.user_id] = row
    locations = batch.columns["location"]
    return [
        Access(user_id, _write(moments[row]), sequence_numbers[row], locations[row].as_py())
        for user_id, row in best.items()
    ]


def _write(micros: int) -> str:
    return write_timestamp(_EPOCH + timedelta(microseconds=micros))


_EPOCH: Final = datetime(1970, 1, 1)  # UTC, written without a zone
