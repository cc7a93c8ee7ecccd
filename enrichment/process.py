"""The whole of what happens to a batch: decode, enrich, lay out. The job, a replay and the benchmark all call this."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from clickstream.batch import Arrived, outcome, read
from clickstream.decode import Rejected
from enrichment.metrics import Metrics
from enrichment.steps import Step


@dataclass(frozen=True, slots=True)
class Process:
    """Turn records into what becomes of them, row for row, in the columns of `schema.OUTCOME`."""

    steps: Sequence[Step]
    archive: bool  # whether every row carries its payload, for the raw archive
    hide: Callable[[dict[str, pa.Array]], dict[str, pa.Array]] | None = None  # addresses, where they are not stored
    metrics: Metrics = field(default_factory=Metrics)
    now: Callable[[], float] = time.time

    def __call__(self, arrived: Arrived) -> dict[str, pa.Array]:
        with self.metrics.timed("batch_millis"):
            batch, rejected = read(arrived)
            for step in self.steps:
                batch = step(batch)
            columns = outcome(arrived, batch, rejected, archive=self.archive)
        self._count(arrived, rejected, columns)
        return columns if self.hide is None else self.hide(columns)

    def _count(self, arrived: Arrived, rejected: Sequence[Rejected | None], columns: Mapping[str, pa.Array]) -> None:
        reasons = Counter(one.reason for one in rejected if one is not None)
        self.metrics.count("batches")
        self.metrics.count("decoded", len(rejected) - reasons.total())
        for reason, count in reasons.items():
            self.metrics.count("rejected", count, reason=reason)
        self.metrics.count("offers", len(columns["offer_id"]) - columns["offer_id"].null_count)
        if rejected:
            newest = pc.max(arrived.origin["arrival_timestamp"]).cast(pa.int64()).as_py()
            self.metrics.set("behind_millis", max(0, round(self.now() * 1000) - newest // 1000))
