"""The columns of a batch are made once, handed out once each, and then nobody holds the batch."""

import gc
import weakref
from collections.abc import Mapping

import pyarrow as pa

from clickstream.batch import Arrived
from enrichment.metrics import Metrics
from flink_app.function import _Worker
from tests.events import arrived


class Counted:
    """Makes two columns of a batch, and counts how often."""

    metrics = Metrics()

    def __init__(self) -> None:
        self.batches: list[weakref.ref[pa.Array]] = []

    def __call__(self, arrived: Arrived) -> Mapping[str, pa.Array]:
        self.batches.append(weakref.ref(arrived.payload))
        return {"size": pa.array([len(arrived.payload)]), "payload": arrived.payload}


def test_a_batch_is_processed_once_and_let_go_of_with_its_last_column() -> None:
    process = Counted()
    worker = _Worker(process)  # type: ignore[arg-type]  # all that it is asked for
    for size in (1, 2):
        batch = arrived([b"{}"] * size)
        origins = [*batch.origin.values()]

        assert worker.column("size", batch.payload, origins).to_pylist() == [size]
        assert len(worker.column("payload", batch.payload, origins)) == size
        del batch, origins
        gc.collect()
        assert [of_batch() for of_batch in process.batches] == [None] * size
