"""One user's rows: found in every table of a lake, handed over, or taken out of the files that hold them.

Taking out is safe to be interrupted at any point and started again. Files are rewritten hour by hour and table by
table: first the new ones, out of sight; then one small file that says what is to be swapped, after which the swap is
certain to happen; then the new ones appear, a record of the erase is written, and the old ones go. Whoever dies in
between leaves the other users' rows twice for a while, never none, and the next erase, of whomever, begins by finishing
the swap.

Only committed files are touched, so that a job may go on writing. What it commits meanwhile is found by looking again.
"""

import csv
import gzip
import os
import socket
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct, field

from clickstream.errors import Refused, Unavailable
from clickstream.offer import earns, id_of_click
from clickstream.person import Person
from clickstream.schema import UTC_MICROS
from connectors.lake import Lake, LakeFile

RECORDS: Final = "_erasures"
"""The table of what has been erased; it has partitions like all others, those of the rows that are gone."""

RECORD: Final = pa.schema(
    [
        pa.field("erase_id", pa.string()),
        pa.field("asked_by", pa.string()),
        pa.field("at", UTC_MICROS),
        pa.field("table", pa.string()),
        pa.field("shard_id", pa.string()),  # empty where rows do not say where they came from
        pa.field("rows", pa.int64()),
        pa.field("origins", pa.list_(pa.string())),  # digests, see `digest`; of those rows that have one
        pa.field("offers", pa.list_(pa.string())),  # digests of the ids of the offers that they have earned
    ]
)
PASSES: Final = 3
"""How often to look again for what a job has committed meanwhile."""

_EARNING: Final = ("event_name", "click_id", "additional_data")
_SWAP: Final = ".swap.json"
_LOCK: Final = ".lock.json"
_NEW: Final = ".part-erased-"
_REPLAY: Final = "_replay"


class Theirs(NamedTuple):
    """What a file holds of a person: which rows or lines, and the addresses they came from."""

    table: str
    file: LakeFile
    rows: int
    addresses: set[str]
    data: pa.Table | list[bytes]  # their rows, or their lines


class _Swap(Struct):
    """What is certain to happen: these files take the places of those, and this is on record."""

    record: str  # the name of the record's file
    partition: str
    rows: list[dict[str, Any]]  # of the record
    files: list[tuple[str, str | None]]  # old and new by their paths below the root; None if nothing is left


class _Gone(Struct):
    """What was taken out of one shard's rows in a table's partition."""

    rows: int = 0
    origins: list[str] = field(default_factory=list)
    offers: list[str] = field(default_factory=list)


class _Lock(Struct):
    host: str
    pid: int


def digest(text: str) -> str:
    """Return 64 bits of SHA-256: enough to know again a `shard_id/sequence_number` or an offer's id that one has.

    It says nothing of the person, and leads nowhere once there is no row with that origin any more.
    """
    return sha256(text.encode()).hexdigest()[:16]


def search(lake: Lake, person: Person, looked: Callable[[], None] = lambda: None) -> Iterator[Theirs]:
    """Yield what each committed file holds of a person, reading one file at a time; `looked` is called for each file.

    A table is whatever folder there is; Parquet is judged by its columns `user_id` and `payload`, JSON lines one by
    one, and other text by its column `user_id` if the first line names one. A file that a replay has taken away
    meanwhile is passed over.
    """
    for table in lake.tables():
        for file in lake.files(table):
            try:
                found = _theirs_in(lake, table, file, person)
            except FileNotFoundError:
                found = None
            except pa.ArrowInvalid as error:
                raise Refused(
                    f"{file.path} cannot be read ({error}), and may hold rows of theirs. Next: look at it, or remove it"
                ) from None
            looked()
            if found is not None:
                yield found


def count_files(lake: Lake) -> int:
    """Count the files there are to look into."""
    return sum(len(lake.files(table)) for table in lake.tables())


class Erased(NamedTuple):
    """What an erase has come to: rows taken out by table, files rewritten, addresses that the rows named."""

    rows: Counter[str]
    files: int
    addresses: set[str]
    left: Counter[str]  # rows that a search afterwards found, all of them committed meanwhile


class Erasure:
    """One erase: takes a person's rows out of a lake and leaves a record of how many there were, and where."""

    def __init__(self, lake: Lake, person: Person, asked_by: str, at: datetime | None = None) -> None:
        self.erase_id = uuid.uuid4().hex[:12]
        self._lake = lake
        self._person = person
        self._asked_by = asked_by
        self._at = at or datetime.now(UTC)
        self._swaps = 0

    def __call__(self, looked: Callable[[], None] = lambda: None) -> Erased:
        """Erase, look again whether anything is left, and erase what a job has committed meanwhile.

        `Refused` while a replay or another erase is at work on the lake.
        """
        rows: Counter[str] = Counter()
        addresses: set[str] = set()
        files = 0
        with self._alone():
            self._finish()
            self._tidy()
            for _ in range(PASSES):
                for table, partition, found in self._by_partition(looked):
                    self._prepare(table, partition, found)
                    self._finish()
                    rows[table] += sum(one.rows for one in found)
                    files += len(found)
                    addresses.update(*(one.addresses for one in found))
                left = Counter[str]()
                for one in search(self._lake, self._person, looked):
                    left[one.table] += one.rows
                if not left:
                    break
        return Erased(rows, files, addresses, left)

    def _by_partition(self, looked: Callable[[], None]) -> Iterator[tuple[str, str, list[Theirs]]]:
        """Group what is found, without the rows themselves, by table and partition."""
        found: dict[tuple[str, str], list[Theirs]] = defaultdict(list)
        for one in search(self._lake, self._person, looked):
            found[one.table, one.file.partition].append(one._replace(data=[]))
        for (table, partition), some in sorted(found.items()):
            yield table, partition, some

    def _prepare(self, table: str, partition: str, found: list[Theirs]) -> None:
        """Write the new files out of sight, and then what is to be swapped."""
        files: list[tuple[str, str | None]] = []
        gone: dict[str, _Gone] = defaultdict(_Gone)
        for one in found:
            new = self._rewrite(table, one, gone)
            files.append((self._lake.path(one.file), new))
        common = {"erase_id": self.erase_id, "asked_by": self._asked_by, "at": self._at, "table": table}
        self._swaps += 1
        swap = _Swap(
            record=f"part-{self.erase_id}-{self._swaps}",
            partition=partition,
            rows=[{**common, "shard_id": shard, **msgspec.structs.asdict(of)} for shard, of in sorted(gone.items())],
            files=files,
        )
        self._lake.put(RECORDS, "", _SWAP, msgspec.json.encode(swap))

    def _rewrite(self, table: str, found: Theirs, gone: dict[str, "_Gone"]) -> str | None:
        """Write what a file holds of others, in its order, schema and codec; return where, None if that is nothing.

        What it held of the person is noted in `gone`, by shard.
        """
        file = found.file
        name = f"{_NEW}{uuid.uuid4().hex}{_suffix(file)}"
        if self._lake.is_parquet(file):
            rows = self._lake.read(file)
            theirs = self._person.rows(rows)
            _note(rows.filter(theirs), table, gone)
            rows = rows.filter(pc.invert(theirs))
            if not len(rows):
                return None
            codec = self._lake.codec(file)
            return self._lake.path(self._lake.write(table, file.partition, name, rows, codec=codec))
        kept, lines, packed = _lines(self._lake, file, self._person)
        gone[""].rows += len(lines)
        if not any(line.strip() for line in kept):
            return None
        data = b"".join(kept)
        written = self._lake.put(table, file.partition, name, gzip.compress(data, mtime=0) if packed else data)
        return self._lake.path(written)

    def _finish(self) -> None:
        """Do what is written down to be swapped; whatever of it is done already is left as it is."""
        written = self._lake.get(f"{RECORDS}/{_SWAP}")
        if written is None:
            return
        swap = msgspec.json.decode(written, type=_Swap)
        for _, new in swap.files:
            if new is not None:
                folder, _, name = new.rpartition("/")
                self._lake.rename(new, f"{folder}/{name.removeprefix('.')}")
        rows = [{**row, "at": datetime.fromisoformat(row["at"])} for row in swap.rows]
        self._lake.write(RECORDS, swap.partition, swap.record, pa.Table.from_pylist(rows, RECORD))
        for old, _ in swap.files:
            self._lake.remove(self._lake.at(old))
        self._lake.remove(self._lake.at(f"{RECORDS}/{_SWAP}"))

    def _tidy(self) -> None:
        """Remove what an erase that died had begun to write and nobody will swap."""
        for table in self._lake.tables():
            for file in self._lake.unfinished(table):
                if file.path.rpartition("/")[2].lstrip(".").startswith(_NEW.lstrip(".")):
                    self._lake.remove(file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from erasing, and replays' results from being missed."""
        if self._lake.files(_REPLAY) or self._lake.unfinished(_REPLAY):
            raise Refused(
                f"a replay is at work on this lake, or one has died, and its folder {_REPLAY} holds copies of records. "
                f"Next: let it finish, or remove {_REPLAY}, and erase again"
            )
        me = _Lock(socket.gethostname(), os.getpid())
        held = self._lake.get(f"{RECORDS}/{_LOCK}")
        if held is not None:
            holder = msgspec.json.decode(held, type=_Lock)
            if holder.host != me.host or (holder.pid != me.pid and Path(f"/proc/{holder.pid}").exists()):
                raise Refused(
                    f"another erase is at work on this lake: process {holder.pid} on {holder.host}. Next: let it "
                    f"finish; if it has died there, remove {RECORDS}/{_LOCK} and erase again, which finishes its work"
                )
        self._lake.put(RECORDS, "", _LOCK, msgspec.json.encode(me))
        try:
            yield
        finally:
            self._lake.remove(self._lake.at(f"{RECORDS}/{_LOCK}"))


def _theirs_in(lake: Lake, table: str, file: LakeFile, person: Person) -> Theirs | None:
    """Say what a file holds of a person; None if it is nothing. Only the columns that tell are read of most files."""
    if not file.size:
        return None
    if not lake.is_parquet(file):
        _, lines, _ = _lines(lake, file, person)
        addresses = person.addresses(pa.table({"payload": pa.array(lines, pa.binary())}))
        return Theirs(table, file, len(lines), addresses, lines) if lines else None
    telling = [name for name in lake.columns(file) if name in ("user_id", "payload")]
    if not telling or not pc.any(person.rows(lake.read(file, telling))).as_py():
        return None
    rows = lake.read(file)
    rows = rows.filter(person.rows(rows))
    return Theirs(table, file, len(rows), person.addresses(rows), rows)


def _note(rows: pa.Table, table: str, gone: dict[str, _Gone]) -> None:
    """Count rows by shard, with the digests of where they were accepted and of the offers they have earned."""
    blank = [""] * len(rows)
    shards, numbers = (
        rows[name].to_pylist() if name in rows.column_names else blank for name in ("shard_id", "sequence_number")
    )
    for shard, number in zip(shards, numbers, strict=True):
        gone[shard].rows += 1
        if number:
            gone[shard].origins.append(digest(f"{shard}/{number}"))
    if table == "enriched":
        for row in rows.select(["shard_id", *_EARNING]).to_pylist():
            if earns(row["event_name"], row["additional_data"]["percent_viewed"]):
                gone[row["shard_id"]].offers.append(digest(id_of_click(row["click_id"])))


def _lines(lake: Lake, file: LakeFile, person: Person) -> tuple[list[bytes], list[bytes], bool]:
    """Part a text file's lines into those of others and those of a person; say too whether it is packed with gzip."""
    data = lake.get(lake.path(file))
    if data is None:
        raise FileNotFoundError(file.path)
    packed = data.startswith(b"\x1f\x8b")
    try:
        lines = (gzip.decompress(data) if packed else data).splitlines(keepends=True)
    except (OSError, EOFError) as error:
        raise Unavailable(
            f"{file.path} cannot be unpacked ({error}), and may hold rows of theirs. Next: look at it, or remove it"
        ) from None
    is_theirs = _line_test(lines[0] if lines else b"", person)
    kept: list[bytes] = []
    theirs: list[bytes] = []
    for line in lines:
        (theirs if is_theirs(line) else kept).append(line)
    return kept, theirs, packed


def _line_test(header: bytes, person: Person) -> Callable[[bytes], bool]:
    """Choose how lines are told apart: JSON by its user_id, text with columns by the one of that name."""
    if header.lstrip().startswith((b"{", b"[")):
        return lambda line: person.owns(line.rstrip(b"\r\n"))
    delimiter = next((one for one in "|,\t" if one.encode() in header), ",")

    def cells(line: bytes) -> list[str]:
        return next(csv.reader([line.decode(errors="replace").rstrip("\r\n")], delimiter=delimiter), [])

    names = cells(header)
    if "user_id" not in names:
        return lambda _: False
    column = names.index("user_id")
    return lambda line: cells(line)[column : column + 1] == [person.user_id]


def _suffix(file: LakeFile) -> str:
    """Keep what a file's name says of its kind: .csv, .json.gz."""
    return "".join(Path(file.path).suffixes[-2:]) if not file.path.rpartition("/")[2].startswith("part-") else ""
