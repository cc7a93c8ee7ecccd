"""A batch in a region is worked on where it is, and what becomes of it is written behind it."""

import mmap
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from flink_app.region import answered


def address(file: Path, start: int, size: int) -> bytes:
    return start.to_bytes(8, "little") + size.to_bytes(8, "little") + str(file).encode()


def read(answer: bytes, file: Path) -> bytes:
    start, size, name = int.from_bytes(answer[:8], "little"), int.from_bytes(answer[8:16], "little"), answer[16:]
    assert name.decode() == str(file)
    return file.read_bytes()[start : start + size]


@pytest.mark.parametrize("answer", [[], [b""], [b"short"], [b"two", pa.py_buffer(b"parts")], [b"x" * 3_000_000]])
def test_an_answer_is_behind_its_batch_however_long_it_is(answer: Sequence[bytes], tmp_path: Path) -> None:
    file = tmp_path / "a region"
    file.write_bytes(b"--------" + b"batch" + bytes(100))

    found = answered(address(file, 8, 5), lambda batch: [batch.to_pybytes(), *answer])

    assert read(found, file) == b"batch" + b"".join(map(bytes, answer))
    assert int.from_bytes(found[:8], "little") % 8 == 0
    assert file.read_bytes()[:13] == b"--------batch"


def test_a_region_that_flink_has_made_larger_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "region"
    for size in (10, 10 * mmap.PAGESIZE, 10):
        batch = bytes(range(250)) * (size // 250 + 1)
        with file.open("r+b" if file.exists() else "w+b") as region:
            region.write(bytes(8) + batch)
        seen: list[bytes] = []

        def work(given: pa.Buffer, seen: list[bytes] = seen) -> list[bytes]:
            seen.append(given.to_pybytes())
            return [b"done"]

        assert read(answered(address(file, 8, len(batch)), work), file) == b"done"
        assert seen == [batch]


def test_a_region_is_mapped_once_and_its_batch_is_read_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "region"
    file.write_bytes(bytes(8) + b"batch" + bytes(99))
    given: list[int] = []

    def work(batch: pa.Buffer) -> list[pa.Buffer]:
        given.append(batch.address)
        return [batch.slice(1, 2)]

    assert read(answered(address(file, 8, 5), work), file) == b"at"
    answered(address(file, 8, 5), work)
    assert given[0] == given[1]
