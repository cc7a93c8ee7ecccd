"""The crossing into Python: a batch of records in, the columns of what became of them out.

Flink has no function that returns many columns without wrapping them in a ROW, and every reader of a ROW's field
copies the whole ROW first: with four sinks that was half of the JVM's time. So there is one function a column. They
are called one after the other with the same arguments; the first one does the work, the others hand out its columns.
"""

import gc
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
from pandas.core.arrays.arrow import ArrowExtensionArray
from pyflink.table.udf import FunctionContext, ScalarFunction, udf

from clickstream.batch import Arrived, click_ids, first, origin
from clickstream.schema import flink_type, sliced
from clickstream.settings import Settings
from enrichment.metrics import GAUGES, Key, Metrics
from enrichment.process import Process
from flink_app import replaced  # noqa: F401  # importing it is what it does
from flink_app.wiring import process


class Column(ScalarFunction):
    """One column of the outcome."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._shown: _Shown | None = None

    def open(self, function_context: FunctionContext) -> None:
        self._shown = _Shown(function_context)

    def eval(self, payload: pa.Array, *origins: pa.Array) -> pd.Series:
        # Not in open(): Flink hears of an exception there only after Beam has waited three minutes for a bundle.
        worker = _Worker.of(self._settings)
        return _as_series(worker.column(self._name, payload, origins, self._shown))

    def is_deterministic(self) -> bool:
        return False  # it talks to Redis: the planner may not compute it at planning time, or twice


class ClickId(ScalarFunction):
    """The click_id of an event, null for what is none."""

    def eval(self, payload: pa.Array) -> pd.Series:
        return _as_series(click_ids(payload))


def columns(settings: Settings) -> dict[str, Any]:
    """Return the functions by the name of their column."""
    schema = sliced(raw=settings.lake.raw, suppressed=settings.dedup.enabled, offers=settings.offers.enabled)
    return {
        column.name: udf(Column(column.name, settings), result_type=flink_type(column.type), func_type="pandas")
        for column in schema
    }


def click_id() -> Any:
    """Return the function that de-duplication needs before all others."""
    return udf(ClickId(), result_type="STRING", func_type="pandas")


class _Worker:
    """What the functions of one Python process share: caches and connections, and by thread the batch at hand."""

    _lock = threading.Lock()
    _workers: ClassVar[dict[Settings, "_Worker"]] = {}

    def __init__(self, process: Process) -> None:
        self._process = process
        self._at_hand = threading.local()

    @classmethod
    def of(cls, settings: Settings) -> "_Worker":
        with cls._lock:
            if settings not in cls._workers:
                cls._workers[settings] = cls(process(settings))
                # What Beam, pandas and pyarrow have loaded stays; looking it through for garbage over and over took a
                # third of the worker's time.
                gc.collect()
                gc.freeze()
            return cls._workers[settings]

    def column(
        self, name: str, payload: pa.Array, origins: Sequence[pa.Array], shown: "_Shown | None" = None
    ) -> pa.Array:
        """Process a batch when the first of its columns is asked for: the same array is the same batch.

        Each column is handed out once, so that a thread that has no more to do holds no batch.
        """
        at_hand = self._at_hand
        if getattr(at_hand, "payload", None) is not payload:
            its_origin = origin(*origins[:3])
            at_hand.columns = self._process(Arrived(payload, its_origin, first(its_origin, *origins[3:])))
            at_hand.payload = payload
            if shown is not None:
                shown.update(self._process.metrics)
        column = at_hand.columns.pop(name)
        if not at_hand.columns:
            at_hand.payload = None
        return column


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
