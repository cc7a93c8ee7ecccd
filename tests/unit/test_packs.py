"""Packs hold the columns that went into them, and nothing is copied to get them out."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickstream.packs import packed, unpack
from tests.events import together

values = st.lists(st.binary(max_size=20), max_size=20)


@settings(deadline=None)  # on a busy machine the first one loads numpy
@given(values, st.integers(0, 5))
def test_what_goes_in_comes_out(given: Sequence[bytes], cut: int) -> None:
    as_array = pa.array(given, pa.binary()).slice(cut)
    in_parts = [*given[cut : cut + 2], as_array.slice(2)]

    pack = together(packed(given[cut:], [pa.py_buffer(one) for one in given[cut:]], [as_array], in_parts))

    assert [column.to_pylist() for column in unpack(pack, [pa.binary()] * 4)] == [given[cut:]] * 4


@given(st.lists(st.datetimes(), max_size=9))
def test_moments_are_eight_bytes_each(moments: list[object]) -> None:
    times = pa.array(moments, pa.timestamp("us"))
    count, *texts = packed([times.cast(pa.string())])
    pack = together([count, np.asarray(times).astype(np.int64).tobytes(), *texts])

    assert unpack(pack, [pa.timestamp("us"), pa.string()]) == [times, times.cast(pa.string())]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="too many values"):
        packed([b"one"], [b"one", b"more"])


def test_columns_are_where_the_pack_is() -> None:
    pack = together(packed([b"here", b"there"]))

    (column,) = unpack(pack, [pa.string()])

    assert pack.address <= column.buffers()[2].address < pack.address + pack.size
