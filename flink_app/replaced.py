"""What is replaced in the worker that PyFlink and Beam bring, and why: three ways in which it waits, or copies bytes.

Two of them are about Arrow, which only de-duplication's `click_id_of` still uses.

Importing this module does it. All three are private to releases that are pinned; tests/unit/test_replaced.py goes
through each as they do.
"""

import threading

import pyarrow as pa
from apache_beam.runners.worker import statesampler
from pyflink.fn_execution import coder_impl_fast
from pyflink.fn_execution.ResettableIO import ResettableIO


class Input(ResettableIO):
    """A batch's bytes, which pyarrow reads where they are; PyFlink hands it the copy of a copy of a copy."""

    def set_input_bytes(self, b: bytes) -> None:
        """Begin with another batch."""
        self._view, self._at = memoryview(b), 0

    def read(self, size: int = -1) -> memoryview:  # type: ignore[override]  # pyarrow takes whatever has bytes
        """Return the next bytes, fewer at the end."""
        start = self._at
        self._at = len(self._view) if size < 0 else min(start + size, len(self._view))
        return self._view[start : self._at]

    def readable(self) -> int:  # type: ignore[override]  # PyFlink asks it how much there is
        """Say how many bytes are left."""
        return len(self._view) - self._at


def columns(_timezone: object, _types: object, batches: list[pa.RecordBatch]) -> list[pa.Array]:
    """Hand a batch's columns to the functions as they are; PyFlink makes pandas columns of them."""
    return batches[0].columns


def start(sampler: statesampler.StateSampler) -> None:
    """Begin a bundle without a thread that looks what the bundle is at.

    It sleeps longer the longer the bundle takes, and the bundle's end waits for it to wake up: for a tenth of the time
    that the bundle took. Flink shows none of what it sees.
    """
    sampler.tracked_thread = threading.current_thread()
    statesampler.set_current_tracker(sampler)
    sampler.started = True


def stop(sampler: statesampler.StateSampler) -> None:
    """End a bundle."""
    statesampler.set_current_tracker(None)
    sampler.finished = True


coder_impl_fast.ResettableIO = Input
coder_impl_fast.arrow_to_pandas = columns
statesampler.StateSampler.start = start
statesampler.StateSampler.stop = stop
