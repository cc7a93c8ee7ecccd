"""The whole of what happens to a batch: decode, enrich, lay out. The job, a replay and the benchmark all call this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from clickstream.batch import Arrived, outcome, read
from enrichment.steps import Step


@dataclass(frozen=True, slots=True)
class Process:
    """Turn records into what becomes of them, row for row, in the columns of `schema.OUTCOME`."""

    steps: Sequence[Step]
    archive: bool  # whether every row carries its payload, for the raw archive
    hide: Callable[[dict[str, pa.Array]], dict[str, pa.Array]] | None = None  # addresses, where they are not stored

    def __call__(self, arrived: Arrived) -> dict[str, pa.Array]:
        batch, rejected = read(arrived)
        for step in self.steps:
            batch = step(batch)
        columns = outcome(arrived, batch, rejected, archive=self.archive)
        return columns if self.hide is None else self.hide(columns)
