"""What is replaced in PyFlink's and Beam's worker does what they call it for."""

import threading

import pyarrow as pa
from apache_beam.runners.worker import statesampler
from apache_beam.utils.counters import CounterFactory
from pyflink.fn_execution import coder_impl_fast

from flink_app.replaced import Input, columns


def test_pyflink_uses_them() -> None:
    assert coder_impl_fast.ResettableIO is Input
    assert coder_impl_fast.arrow_to_pandas is columns


def test_pyarrow_reads_one_batch_after_the_other_where_its_bytes_are() -> None:
    stream = Input()
    for words in (["a", None], [], ["ä" * 100_000]):
        batch = pa.record_batch([pa.array(words, pa.string()), pa.array([1] * len(words))], ["words", "ones"])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        given = sink.getvalue().to_pybytes()
        stream.set_input_bytes(given)
        assert stream.readable() == len(given)
        read = pa.ipc.open_stream(stream).read_next_batch()
        assert read == batch
        assert columns(None, None, [read]) == batch.columns
        if words and words[0] != "a":
            first = pa.py_buffer(given).address
            assert first <= read.column(0).buffers()[2].address < first + len(given)
    assert stream.read(), "what ends the stream is left, as PyFlink leaves it"
    assert not stream.read(1)


def test_a_bundle_is_over_without_a_thread_to_wait_for() -> None:
    sampler = statesampler.StateSampler("bundle", CounterFactory())
    for _ in range(2):
        sampler.reset()
        before = threading.active_count()
        sampler.start()
        assert statesampler.get_current_tracker() is sampler
        assert threading.active_count() == before
        sampler.stop_if_still_running()
        sampler.stop_if_still_running()
        assert statesampler.get_current_tracker() is None
