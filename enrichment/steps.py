"""The steps an event goes through, in order."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from clickstream.batch import Batch, objects
from clickstream.errors import Unavailable
from clickstream.place import Status
from enrichment.answers import Answers
from enrichment.metrics import Metrics

log = logging.getLogger(__name__)

Step = Callable[[Batch], Batch]

MAX_CLOCK_LEAD: Final = timedelta(minutes=5)
"""An access counts as no later than this after its arrival: one client in the year 3000 must not freeze its user."""


def enrichment(answers: Answers, accesses: "Accesses", metrics: Metrics | None = None) -> tuple[Step, ...]:
    """List the steps. Last access comes last, since it keeps the place that the step before has found."""
    return (AddPlaceAndName(answers), KeepLastAccess(accesses, metrics or Metrics()))


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


Access = tuple[str, str, str, str | None]
"""A user id, when the user was last seen (`YYYY-MM-DD HH:MM:SS.ffffff` in UTC, text that sorts as time does), the
sequence number of that event, and where it was; None leaves the place that is known already."""


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
    metrics: Metrics = field(default_factory=Metrics)

    def __call__(self, batch: Batch) -> Batch:
        if not batch.events:
            return batch
        newest = _newest(batch)
        try:
            self.accesses.keep_newest(newest)
            self.metrics.count("last_access_writes", len(newest))
        except Unavailable as down:
            self.metrics.count("last_access_lost", len(newest))
            self.metrics.count("redis_errors")
            log.warning("the last access of %d users is not kept: %s", len(newest), down)
        return batch


def _newest(batch: Batch) -> list[Access]:
    """Find each user's newest access in the batch."""
    lead = MAX_CLOCK_LEAD // timedelta(microseconds=1)
    latest = np.asarray(batch.origin["arrival_timestamp"].cast(pa.int64())) + lead
    moments = np.minimum(np.asarray(batch.columns["timestamp"].cast(pa.int64())), latest)
    user_ids, row_of_user = batch.distinct("user_id")
    users = np.asarray(row_of_user)
    order = np.lexsort((moments, users))  # by user, then by moment
    is_last = np.append(users[order][1:] != users[order][:-1], True)
    rows = order[is_last]
    tied = np.flatnonzero(~is_last[:-1] & is_last[1:] & (moments[order][1:] == moments[order][:-1]))
    sequence_numbers = batch.origin["sequence_number"]
    for place in tied:  # few users do two things in one microsecond
        rivals = order[(users[order] == users[order[place]]) & (moments[order] == moments[order[place]])]
        winner = max(rivals.tolist(), key=lambda row: int(sequence_numbers[row].as_py()))
        rows[users[rows] == users[winner]] = winner
    return list(
        zip(
            map(user_ids.__getitem__, users[rows].tolist()),
            _written(moments[rows]),
            objects(sequence_numbers.take(pa.array(rows))),
            objects(batch.columns["location"].take(pa.array(rows))),
            strict=True,
        )
    )


def _written(micros: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str]:
    """Write timestamps of the years 1 to 9999, all at once."""
    text = np.datetime_as_string(micros.astype("datetime64[us]")).astype("S26")
    text.view("u1").reshape(-1, 26)[:, 10] = ord(" ")
    return [moment.decode() for moment in text.tolist()]
