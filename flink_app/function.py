"""The crossing into Python: a batch of records in, what became of them out, in memory that Flink has mapped, too."""

import gc
import threading
from functools import partial
from typing import Any, Final

import pandas as pd
import pyarrow as pa
from pandas.core.arrays.arrow import ArrowExtensionArray
from pyflink.table.udf import FunctionContext, ScalarFunction, udf

from clickstream.batch import Arrived, click_ids, first, origin
from clickstream.packs import Part, unpack
from clickstream.schema import RAW
from clickstream.settings import Settings
from enrichment.metrics import GAUGES, Key, Metrics
from enrichment.process import Process
from flink_app import replaced  # noqa: F401  # importing it is what it does
from flink_app.region import answered
from flink_app.wiring import process


class Outcome(ScalarFunction):
    """What becomes of a batch: where it is goes in, and out comes where that is, in the columns of `schema.OUTCOME`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._types = [*RAW.types, *([pa.string()] if settings.dedup.enabled else [])]
        self._shown: _Shown | None = None

    def open(self, function_context: FunctionContext) -> None:
        self._shown = _Shown(function_context)

    def eval(self, batch: bytes) -> bytes:
        # Not in open(): Flink hears of an exception there only after Beam has waited three minutes for a bundle.
        process = _process(self._settings)

        def work(pack: pa.Buffer) -> list[Part]:
            payload, *origins = unpack(pack, self._types)
            its_origin = origin(*origins[:3])
            return process(Arrived(payload, its_origin, first(its_origin, *origins[3:]))).packed()

        outcome = answered(batch, work)
        if self._shown is not None:
            self._shown.update(process.metrics)
        return outcome

    def is_deterministic(self) -> bool:
        return False  # it talks to Redis: the planner may not compute it at planning time, or twice


class ClickId(ScalarFunction):
    """The click_id of an event, null for what is none."""

    def eval(self, payload: pa.Array) -> pd.Series:
        return _as_series(click_ids(payload))


def outcome(settings: Settings) -> Any:
    """Return the function that does the work."""
    return udf(Outcome(settings), result_type="BYTES")


def click_id() -> Any:
    """Return the function that de-duplication needs before all others."""
    return udf(ClickId(), result_type="STRING", func_type="pandas")


_lock: Final = threading.Lock()
_processes: Final[dict[Settings, Process]] = {}


def _process(settings: Settings) -> Process:
    """Return what the threads of one Python process share: caches and connections."""
    with _lock:
        if settings not in _processes:
            _processes[settings] = process(settings)
            # What Beam, pandas and pyarrow have loaded stays; looking it through for garbage over and over took a
            # third of the worker's time.
            gc.collect()
            gc.freeze()
        return _processes[settings]


class _Shown:
    """The metrics as Flink shows them, in the group that Managed Flink passes on to CloudWatch.

    Beam counts only on the thread of a bundle, so what background threads count is passed on with the next batch.
    """

    def __init__(self, context: FunctionContext) -> None:
        self._context = context
        self._counters: dict[Key, Any] = {}

    def update(self, metrics: Metrics) -> None:
        """Pass on what was counted since the last batch."""
        if not self._counters:
            for name in GAUGES:
                self._group().gauge(name, partial(metrics.value, name))
        for key, count in metrics.take().items():
            if key not in self._counters:
                group = self._group() if key.label is None else self._group().add_group(*key.label)
                self._counters[key] = group.counter(key.name)
            self._counters[key].inc(count)

    def _group(self) -> Any:
        return self._context.get_metric_group().add_group("kinesisanalytics")


class _Whole(ArrowExtensionArray):
    """An Arrow array that pandas carries and pyarrow takes back as it is."""

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:  # noqa: A002  # pyarrow's name
        return self._pa_array.chunk(0)


def _as_series(column: pa.Array) -> pd.Series:
    """Hand an Arrow array through PyFlink's pandas, which turns it back into Arrow: no value is touched on the way."""
    series = pd.Series(_Whole(pa.chunked_array([column])))
    # PyFlink passes series.isnull() on as a mask, which pyarrow refuses beside an array that is Arrow already.
    object.__setattr__(series, "isnull", lambda: None)
    return series
