"""The whole of what happens to a batch: decode, enrich, lay out. The job, a replay and the benchmark all call this."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickstream.batch import Arrived, Batch, Mask, earned, read
from clickstream.decode import Rejected
from clickstream.slices import Outcomes, slices
from enrichment.metrics import Metrics
from enrichment.steps import Step


@dataclass(frozen=True, slots=True)
class Process:
    """Turn records into what becomes of them, in slices of the tables."""

    steps: Sequence[Step]
    archive: bool  # whether the raw archive is written
    offers: bool = True  # whether slices come with offers
    hide: Callable[[dict[str, pa.Array]], dict[str, pa.Array]] | None = None  # addresses, where they are not stored
    metrics: Metrics = field(default_factory=Metrics)
    now: Callable[[], float] = time.time

    def __call__(self, arrived: Arrived) -> Outcomes:
        """Process a batch."""
        with self.metrics.timed("batch_millis"):
            batch, rejected = read(arrived)
            for step in self.steps:
                batch = step(batch)
            offers = earned(batch)
            self._count(arrived, batch, rejected, offers)
            sent = offers if self.offers else None
            return slices(arrived, batch, rejected, archive=self.archive, offers=sent, hide=self.hide)

    def _count(self, arrived: Arrived, batch: Batch, rejected: Mapping[int, Rejected], offers: Mask) -> None:
        reasons = Counter(one.reason for one in rejected.values())
        self.metrics.count("batches")
        self.metrics.count("decoded", len(batch))
        for reason, count in reasons.items():
            self.metrics.count("rejected", count, reason=reason)
        self.metrics.count("suppressed", int(np.count_nonzero(batch.repeated)))
        self.metrics.count("offers", int(np.count_nonzero(offers)))
        if len(arrived.payload):
            newest = pc.max(arrived.origin["arrival_timestamp"]).cast(pa.int64()).as_py()
            self.metrics.set("behind_millis", max(0, round(self.now() * 1000) - newest // 1000))
