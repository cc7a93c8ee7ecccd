"""The steps an event goes through, in order."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import numpy as np
import pyarrow as pa

from clickstream.batch import Batch, Numbers, objects
from clickstream.errors import Unavailable
from enrichment.answers import Answers
from enrichment.metrics import Metrics
from enrichment.shared import Accesses, LastAccesses

log = logging.getLogger(__name__)

Step = Callable[[Batch], Batch]

MAX_CLOCK_LEAD: Final = timedelta(minutes=5)
"""An access counts as no later than this after its arrival: one client in the year 3000 must not freeze its user."""


def enrichment(answers: Answers, accesses: Accesses, metrics: Metrics | None = None) -> tuple[Step, ...]:
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
        located, named = self.answers.find(addresses, user_ids)
        return batch.adding(
            **located.columns(np.asarray(row_of_address)),
            name=pa.array([answer.value for answer in named], pa.string()).take(row_of_user),
            name_status=pa.array([answer.status for answer in named], pa.string()).take(row_of_user),
        )


@dataclass(frozen=True, slots=True)
class KeepLastAccess:
    """Tell Redis when each user of the batch was last seen, and where; adds no column.

    While Redis is down an access is not kept: the next one, or a replay, makes up for it.
    """

    accesses: Accesses
    metrics: Metrics = field(default_factory=Metrics)

    def __call__(self, batch: Batch) -> Batch:
        if not len(batch):
            return batch
        newest = _newest(batch)
        try:
            self.accesses.keep_newest(newest)
            self.metrics.count("last_access_writes", len(newest.user_ids))
        except Unavailable as down:
            self.metrics.count("last_access_lost", len(newest.user_ids))
            self.metrics.count("redis_errors")
            log.warning("the last access of %d users is not kept: %s", len(newest.user_ids), down)
        return batch


def _newest(batch: Batch) -> LastAccesses:
    """Find each user's newest access in the batch."""
    lead = MAX_CLOCK_LEAD // timedelta(microseconds=1)
    latest = np.asarray(batch.origin["arrival_timestamp"].cast(pa.int64())) + lead
    moments = np.minimum(np.asarray(batch.columns["timestamp"].cast(pa.int64())), latest)
    user_ids, row_of_user = batch.distinct("user_id")
    users = np.asarray(row_of_user)
    by_time = np.argsort(moments, kind="stable")
    rows = np.zeros(len(user_ids), np.int64)
    rows[users[by_time]] = by_time  # numpy leaves the last of several that go to one place
    _settle_ties(rows, users, moments, batch.origin["sequence_number"])
    chosen = pa.array(rows)
    return LastAccesses(
        user_ids,
        objects(pa.array(moments[rows]).cast(pa.timestamp("us")).cast(pa.string())),
        objects(batch.origin["sequence_number"].take(chosen)),
        objects(batch.columns["location"].take(chosen)),
    )


def _settle_ties(rows: Numbers, users: Numbers, moments: Numbers, sequence_numbers: pa.Array) -> None:
    """Of several rows at a user's newest moment choose the one with the largest sequence number."""
    newest = np.flatnonzero(moments == moments[rows][users])
    if len(newest) == len(rows):
        return
    rivals = newest[np.bincount(users[newest])[users[newest]] > 1]  # few users do two things in one microsecond
    for row in rivals.tolist():
        user = users[row]
        rows[user] = max(rows[user], row, key=lambda one: int(sequence_numbers[int(one)].as_py()))
