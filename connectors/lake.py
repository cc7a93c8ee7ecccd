"""The door to the lake: Parquet files in folders of the arrival hour, on disk or in S3.

Files are never changed once they are there under their name: Flink commits them by renaming, or by completing an
upload. Names that begin with a dot or an underscore are work in progress. Writing a file again replaces it whole.
"""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from clickstream.errors import Refused, Unavailable


class LakeFile(NamedTuple):
    """A file of a table. `partition` is its folder below the table, such as year=2021/month=07/day=12/hour=09."""

    path: str
    partition: str
    size: int  # bytes
    written: datetime = datetime.fromtimestamp(0, UTC)


class Lake:
    """The tables below a root: a folder, or an s3:// URI at Amazon or at an endpoint of one's own."""

    def __init__(self, root: str, endpoint: str | None = None, region: str = "us-east-1") -> None:
        self._files, self._root = _file_system(root, endpoint, region)

    def files(self, table: str) -> list[LakeFile]:
        """List a table's committed files; a table that is not there yet has none."""
        base = f"{self._root}/{table}".rstrip("/")
        try:
            found = self._files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        except OSError as error:
            raise Unavailable(f"cannot list {base}: {error}") from None
        return [
            LakeFile(info.path, info.path[len(base) + 1 :].rpartition("/")[0], info.size, info.mtime.astimezone(UTC))
            for info in found
            if info.is_file and not any(part[0] in "._" for part in info.path[len(base) + 1 :].split("/"))
        ]

    def tables(self) -> list[str]:
        """Name the tables there are."""
        try:
            found = self._files.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        except OSError as error:
            raise Unavailable(f"cannot list {self._root}: {error}") from None
        return sorted(one.base_name for one in found if not one.is_file and one.base_name[0] not in "._")

    def unfinished(self, table: str) -> list[LakeFile]:
        """List a table's work in progress, or what was left of it by a job that died."""
        base = f"{self._root}/{table}"
        found = self._files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        return [
            LakeFile(info.path, info.path[len(base) + 1 :].rpartition("/")[0], info.size)
            for info in found
            if info.is_file and any(part[0] in "._" for part in info.path[len(base) + 1 :].split("/"))
        ]

    def rows(self, file: LakeFile) -> int:
        """Count a file's rows by its footer."""
        with self._files.open_input_file(file.path) as source:
            return int(pq.ParquetFile(source).metadata.num_rows)

    def arrivals(self, file: LakeFile) -> tuple[datetime, datetime] | None:
        """Say by its footer when a file's first and last record arrived; None if it does not tell."""
        with self._files.open_input_file(file.path) as source:
            footer = pq.ParquetFile(source).metadata
        groups = [footer.row_group(index).to_dict()["columns"] for index in range(footer.num_row_groups)]
        told = [
            one["statistics"]
            for columns in groups
            for one in columns
            if one["path_in_schema"] == "arrival_timestamp" and one["statistics"] and one["statistics"]["has_min_max"]
        ]
        if not told or len(told) < len(groups):
            return None
        first, last = min(one["min"] for one in told), max(one["max"] for one in told)
        return first.replace(tzinfo=UTC), last.replace(tzinfo=UTC)  # the digits are UTC

    def read(self, file: LakeFile, columns: list[str] | None = None) -> pa.Table:
        """Read a file, without the columns that its folders stand for."""
        with self._files.open_input_file(file.path) as source:
            return pq.ParquetFile(source).read(columns)

    def batches(self, file: LakeFile, columns: Collection[str], rows: int = 50_000) -> Iterator[pa.RecordBatch]:
        """Read those of the columns that a file has, a batch of rows at a time."""
        with self._files.open_input_file(file.path) as source:
            parquet = pq.ParquetFile(source)
            there = [name for name in parquet.schema_arrow.names if name in columns]
            yield from parquet.iter_batches(rows, columns=there)

    def has(self, file: LakeFile) -> bool:
        """Say whether a file is still there."""
        try:
            return bool(self._files.get_file_info(file.path).is_file)
        except OSError as error:
            raise Unavailable(f"cannot look for {file.path}: {error}") from None

    def write(self, table: str, partition: str, name: str, rows: pa.Table, *, codec: str = "snappy") -> LakeFile:
        """Write a file of a table, as Flink would: Snappy, and there under its name only once it is whole."""
        file = pa.BufferOutputStream()
        pq.write_table(rows, file, compression=codec, coerce_timestamps="us")
        return self.put(table, partition, name, file.getvalue())

    def put(self, table: str, partition: str, name: str, data: bytes | pa.Buffer) -> LakeFile:
        """Write a file of whatever kind; it is there under its name only once it is whole."""
        folder = f"{self._root}/{table}/{partition}".rstrip("/")
        self._files.create_dir(folder)
        path, hidden = f"{folder}/{name}", f"{folder}/.{name}"
        with self._files.open_output_stream(hidden, compression=None) as out:
            out.write(data)
        self._files.move(hidden, path)
        return LakeFile(path, partition, self._files.get_file_info(path).size)

    def get(self, path: str) -> bytes | None:
        """Read a file of whatever kind by its path below the root; None if there is none."""
        whole = f"{self._root}/{path}"
        if not self._files.get_file_info(whole).is_file:
            return None
        with self._files.open_input_stream(whole, compression=None) as source:
            return bytes(source.readall())

    def path(self, file: LakeFile) -> str:
        """Return a file's path below the root."""
        return file.path[len(self._root) + 1 :]

    def at(self, path: str) -> LakeFile:
        """Return the file at a path below the root, whether it is there or not."""
        return LakeFile(f"{self._root}/{path}", path.partition("/")[2].rpartition("/")[0], 0)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, by paths below the root; one that has it already is fine."""
        if self._files.get_file_info(f"{self._root}/{old}").is_file:
            self._files.move(f"{self._root}/{old}", f"{self._root}/{new}")

    def is_parquet(self, file: LakeFile) -> bool:
        """Say whether a file is Parquet, by its first bytes."""
        with self._files.open_input_stream(file.path, compression=None) as source:
            return bool(source.read(4) == b"PAR1")

    def codec(self, file: LakeFile) -> str:
        """Name how a Parquet file is compressed."""
        with self._files.open_input_file(file.path) as source:
            groups = pq.ParquetFile(source).metadata
            return str(groups.row_group(0).column(0).compression).lower() if groups.num_row_groups else "snappy"

    def columns(self, file: LakeFile) -> list[str]:
        """Name a file's columns."""
        with self._files.open_input_file(file.path) as source:
            return list(pq.ParquetFile(source).schema_arrow.names)

    def on_disk(self, file: LakeFile, folder: Path) -> Path:
        """Return where a file can be read on this machine: where it is, or a copy in `folder` in the same partition."""
        if isinstance(self._files, fs.LocalFileSystem):
            return Path(file.path)
        copy = folder / file.partition / file.path.rpartition("/")[2]
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            fs.copy_files(file.path, str(copy), self._files, fs.LocalFileSystem())
        except OSError as error:
            raise Unavailable(f"cannot read {file.path}: {error}") from None
        return copy

    def adopt(self, file: LakeFile, lake: "Lake", table: str, name: str) -> None:
        """Move a file of this lake to another one's table at the same place, into the same partition."""
        folder = f"{lake._root}/{table}/{file.partition}"
        self._files.create_dir(folder)
        self._files.move(file.path, f"{folder}/{name}")

    def remove(self, file: LakeFile) -> None:
        """Remove a file; one that is gone already is fine."""
        if self._files.get_file_info(file.path).is_file:
            self._files.delete_file(file.path)

    def remove_table(self, table: str) -> None:
        """Remove a whole table, with the work in progress in it."""
        if self._files.get_file_info(f"{self._root}/{table}").type is fs.FileType.Directory:
            self._files.delete_dir(f"{self._root}/{table}")

    def check(self) -> None:
        """Raise `Refused` unless this lake can be written to."""
        try:
            self._files.create_dir(self._root)
        except OSError as error:
            raise Refused(f"cannot write to the lake at {self._root} ({error}): choose another with --lake") from None


def partition_values(partition: str) -> dict[str, str]:
    """Read the folders' names: {"year": "2021", …}."""
    return dict(part.split("=", 1) for part in partition.split("/") if "=" in part)


def _file_system(root: str, endpoint: str | None, region: str) -> tuple[fs.FileSystem, str]:
    if not root.startswith("s3://"):
        if "://" in root and not root.startswith("file://"):
            raise Refused(f"a lake is a folder or an s3:// URI, not {root}")
        return fs.LocalFileSystem(), str(Path(root.removeprefix("file://")).absolute())
    options: dict[str, Any] = {"region": region}
    if endpoint:
        parts = urlsplit(endpoint)
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme, "allow_bucket_creation": False}
    return fs.S3FileSystem(**options), root.removeprefix("s3://").rstrip("/")
