"""The ledger: what was accepted beside what is in the lake and among the offers, and which records differ.

It holds origins and digests, no payload. They are on disk, in the scratch folder, and compared by DuckDB within a
memory limit: a lake may be larger than memory.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from zlib import crc32

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickstream.batch import Arrived, objects, origin, read, reasons
from clickstream.offer import earns, id_of_click
from clickstream.schema import EVENT, ORIGIN, REASON
from generator.manifest import read_manifest

ACCEPTED: Final = "accepted"
OUTCOMES: Final = ("enriched", "rejected", "suppressed")
TABLES: Final = ("raw", *OUTCOMES)
SOURCES: Final = (ACCEPTED, *TABLES)

ROWS_AT_A_TIME: Final = 50_000
_HOUR_MICROS: Final = 3_600_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ARRIVAL, _SHARD, _SEQUENCE = (column.name for column in ORIGIN)


class Kind(StrEnum):
    """What may be wrong with a record, a file or an offer."""

    UNREADABLE = "unreadable_file"  # truncated, or no Parquet of ours
    LOST = "lost"  # accepted or in raw, but neither enriched, rejected nor suppressed
    NOT_IN_RAW = "not_in_raw"
    REPEATED = "repeated"  # more than once in one table
    TWO_PLACES = "in_two_places"  # in more than one of enriched, rejected, suppressed
    NOT_ACCEPTED = "not_accepted"  # in the lake, and the stream knows nothing of it
    CHANGED = "changed"  # a row is not what the payload says, or two payloads or arrivals of one origin differ
    MISPLACED = "misplaced"  # in another partition than that of its arrival
    OFFER_MISSING = "offer_missing"
    OFFER_UNEXPECTED = "offer_unexpected"


class Finding(NamedTuple):
    """One thing that is wrong: where it was accepted, and what of it; never what it says."""

    kind: Kind
    detail: str
    shard_id: str | None = None
    sequence_number: str | None = None
    arrival: datetime | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """What the books are held to."""

    archived: bool = True  # whether everything has to be in raw
    accepted_since: datetime | None = None  # the stream still knows all that arrived from then on
    offers_since: datetime | None = None  # the offers stream still has all sent from then on; None: it was not read
    whole_lake: bool = True  # whether an offer nobody in the lake has earned is one too many
    since: datetime | None = None
    until: datetime | None = None  # not included


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the comparison came to."""

    totals: Mapping[str, int]  # records by source, and `origins`
    hours: Sequence[Mapping[str, Any]]  # by arrival hour and shard: the records of each source, and the differences
    offers: Mapping[str, int] | None  # due, sent, repeats; None if they were not compared
    differences: Mapping[Kind, int]
    first: Sequence[Finding]
    looked_into: int  # rows whose columns were compared, not only their origin

    @property
    def balanced(self) -> bool:
        """Whether nothing is lost, there twice or changed."""
        return not self.differences

    def __str__(self) -> str:
        """Say it in one line."""
        out = [*OUTCOMES, *(["erased"] if self.totals["erased"] else [])]
        counts = " + ".join(f"{self.totals[table]:,} {table}" for table in out)
        offers = f", {self.offers['sent']:,} offers ({self.offers['repeats']:,} repeats)" if self.offers else ""
        books = f"{self.totals['origins']:,} records = {counts}; {self.totals['raw']:,} in raw{offers}"
        if self.balanced:
            return f"the books balance: {books}"
        wrong = ", ".join(f"{count:,} {kind}" for kind, count in self.differences.items())
        return f"the books do not balance: {wrong} ({books})"

    def facts(self) -> dict[str, Any]:
        """Return it all as JSON can hold it."""
        found: dict[str, Any] = msgspec.to_builtins(
            {
                "balanced": self.balanced,
                "totals": self.totals,
                "offers": self.offers,
                "differences": self.differences,
                "first": [finding._asdict() for finding in self.first],
                "looked_into": self.looked_into,
                "hours": self.hours,
            }
        )
        return found


class Ledger:
    """Takes in what each side has, in any order, and then compares.

    `one_in`: of so many origins the columns of one are compared too, the same ones on all sides; 1 is all of them.
    Taking in the same accepted record twice is fine, since a stream is read at least once.
    """

    def __init__(self, scratch: Path, *, memory: str = "1GB", one_in: int = 1) -> None:
        self._scratch = scratch
        self._one_in = one_in
        self._entries = _Sheet(scratch / "entries.parquet", _ENTRY)
        self._offers = _Sheet(scratch / "offers.parquet", _OFFER)
        self._erased = _Sheet(scratch / "erased.parquet", _ERASED)
        self._files: list[str] = []
        self._unreadable: list[Finding] = []
        self._looked_into = 0
        self._database = duckdb.connect(str(scratch / "ledger.duckdb"))
        self._database.execute("SET memory_limit = $1", [memory])
        self._database.execute("SET temp_directory = $1", [str(scratch / "spilled")])
        self._database.execute("SET TimeZone = 'UTC'")
        self._database.execute("SET enable_progress_bar = false")  # it would be in the midst of JSON

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._entries.close()
            self._offers.close()
            self._erased.close()
        self._database.close()

    def accept(self, records: Iterable[tuple[bytes, str, str, datetime]]) -> int:
        """Take in what a stream holds: payload, shard, sequence number and arrival; return how many there were."""
        count, rest = 0, iter(records)
        while some := list(islice(rest, ROWS_AT_A_TIME)):
            payloads, shards, numbers, arrivals = zip(*some, strict=True)
            moments = pa.array(arrivals, pa.timestamp("us", "UTC"))
            self._add(ACCEPTED, origin(moments, shards, numbers), payload=pa.array(payloads, pa.binary()))
            count += len(some)
        return count

    def accept_manifest(self, file: Path) -> None:
        """Take in the answers that a publisher wrote down: JSON lines, or Parquet if the name says so."""
        if file.suffix == ".parquet":
            parquet = pq.ParquetFile(file)
            names = [name for name in parquet.schema_arrow.names if name in (_ARRIVAL, _SHARD, _SEQUENCE)]
            for batch in parquet.iter_batches(ROWS_AT_A_TIME, columns=names):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                self._add(ACCEPTED, {_ARRIVAL: pa.nulls(batch.num_rows, pa.int64()), **columns})
            return
        rest = read_manifest(file)
        while some := list(islice(rest, ROWS_AT_A_TIME)):
            shards, numbers = (pa.array(column, pa.string()) for column in zip(*some, strict=True))
            columns = {_ARRIVAL: pa.nulls(len(some), pa.int64()), _SHARD: shards, _SEQUENCE: numbers}
            self._add(ACCEPTED, columns)

    def add(self, table: str, path: str, partition: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Take in a file of the lake; return how many rows it has."""
        number, count = len(self._files), 0
        self._files.append(path)
        owes = not path.rpartition("/")[2].startswith(_REWRITTEN)
        for batch in batches:
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            self._add(table, columns, file=number, hour=_hour(partition), owes=owes)
            count += batch.num_rows
        return count

    def add_unreadable(self, path: str, why: str) -> None:
        """Take note of a file that cannot be read."""
        self._unreadable.append(Finding(Kind.UNREADABLE, why, files=(path,)))

    def add_erased(self, table: str, origins: Sequence[str] | None, offers: Sequence[str] | None) -> None:
        """Take note that a privacy erase has taken rows out of a table: `connectors.erasure` digests what of them."""
        for kind, digests in ((table, origins or ()), (_OFFERS, offers or ())):
            columns = [pa.array([kind] * len(digests), pa.string()), pa.array(digests, pa.string())]
            self._erased.write(pa.Table.from_arrays(columns, schema=_ERASED))

    def add_offers(self, offers: Iterable[tuple[str, str, str]]) -> None:
        """Take in what is in the offers stream: an offer's id, and the shard and sequence number it has there."""
        rest = iter(offers)
        while some := list(islice(rest, ROWS_AT_A_TIME)):
            columns = [pa.array(column, pa.string()) for column in zip(*some, strict=True)]
            self._offers.write(pa.Table.from_arrays(columns, schema=_OFFER))

    def close(self, terms: Terms, *, first: int = 20) -> Verdict:
        """Compare, and name up to `first` differences of each kind."""
        self._entries.close()
        self._offers.close()
        self._erased.close()
        self._database.execute(_BOOKS, {"file": self._entries.path, **_scope(terms)})
        self._excuse("gone", _OUT, OUTCOMES)
        self._excuse("gone_from_raw", "raw", ("raw",))
        parameters = {
            "archived": terms.archived,
            "accepted_since": _micros(terms.accepted_since),
        }
        counts = ", ".join(f"count(*) FILTER ({condition})" for condition in _WRONG.values())
        (found,) = self._all(f"SELECT {counts} FROM books", parameters)
        differences: Counter[Kind] = Counter({Kind.UNREADABLE: len(self._unreadable)})
        findings = self._unreadable[:first]
        for (kind, condition), count in zip(_WRONG.items(), found, strict=True):
            differences[kind] = count
            if count:
                findings += self._name(kind, condition, parameters, first)
        offers = None
        if terms.offers_since is not None:
            offers, more = self._compare_offers(terms, differences, first)
            findings += more
        return Verdict(
            totals=self._totals(),
            hours=self._hours(" OR ".join(f"({condition})" for condition in _WRONG.values()), parameters),
            offers=offers,
            differences={kind: differences[kind] for kind in Kind if differences[kind]},
            first=findings,
            looked_into=self._looked_into,
        )

    def _excuse(self, column: str, present: str, tables: Sequence[str]) -> None:
        """Mark those of the missing records that were erased."""
        self._run(f"ALTER TABLE books ADD COLUMN {column} BOOLEAN DEFAULT false")
        origin = _DIGEST.format(f"{_SHARD} || '/' || {_SEQUENCE}")
        self._run(
            f"UPDATE books SET {column} = true WHERE {present} = 0 AND {origin} IN"
            " (SELECT digest FROM read_parquet($erased) WHERE list_contains($tables, kind))",
            {"erased": self._erased.path, "tables": list(tables)},
        )

    def _add(
        self,
        source: str,
        columns: Mapping[str, pa.Array],
        *,
        payload: pa.Array | None = None,
        file: int | None = None,
        hour: int | None = None,
        owes: bool = True,
    ) -> None:
        arrival = columns[_ARRIVAL].cast(pa.int64())
        rows = len(arrival)
        payload = columns.get("payload") if payload is None else payload
        sample = self._sample(columns[_SEQUENCE])
        misplaced = np.zeros(rows, bool) if file is None else _elsewhere(arrival, hour)
        self._looked_into += int(sample.sum()) if file is not None else 0
        values: dict[str, pa.Array] = {
            "source": pa.array(np.full(rows, SOURCES.index(source), np.uint8)),
            _SHARD: columns[_SHARD],
            _SEQUENCE: columns[_SEQUENCE],
            "arrival": arrival,
            "file": pa.array(np.full(rows, file or 0, np.int32), mask=np.full(rows, file is None)),
            "misplaced": pa.array(misplaced),
            "payload": _spread(sample, [] if payload is None else _digests([payload.filter(pa.array(sample))])),
            "event": _spread(sample, _events(source, columns, payload, pa.array(sample))),
            "offer": _offers(columns) if source == "enriched" else pa.nulls(rows, pa.string()),
            "owes": pa.array(np.full(rows, owes)),
        }
        self._entries.write(pa.Table.from_arrays([values[name] for name in _ENTRY.names], schema=_ENTRY))

    def _sample(self, sequence_numbers: pa.Array) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        if self._one_in == 1:
            return np.ones(len(sequence_numbers), bool)
        numbers = objects(sequence_numbers)
        return np.fromiter((crc32(str(one).encode()) % self._one_in == 0 for one in numbers), bool, len(numbers))

    def _totals(self) -> dict[str, int]:
        sums = ", ".join(f"coalesce(sum({source}), 0)::BIGINT" for source in SOURCES)
        (row,) = self._all(f"SELECT count(*), {sums}, count(*) FILTER (gone) FROM books")
        return dict(zip(("origins", *SOURCES, "erased"), row, strict=True))

    def _hours(self, wrong: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        columns = ", ".join(f"sum({source})::BIGINT" for source in SOURCES)
        rows = self._all(
            f"SELECT arrival // {_HOUR_MICROS} AS hour, {_SHARD}, {columns}, count(*) FILTER (gone),"
            f" count(offer), count(*) FILTER ({wrong})"
            " FROM books GROUP BY ALL ORDER BY hour NULLS LAST, 2",
            parameters,
        )
        names = ("hour", _SHARD, *SOURCES, "erased", "offers_due", "differences")
        named = [dict(zip(names, row, strict=True)) for row in rows]
        for row in named:
            row["hour"] = None if row["hour"] is None else _EPOCH + timedelta(hours=row["hour"])
        return named

    def _name(self, kind: Kind, condition: str, parameters: Mapping[str, Any], first: int) -> list[Finding]:
        """Name the first records of a kind, with the files they are in."""
        self._run(
            f"CREATE OR REPLACE TEMP TABLE named AS SELECT * FROM books WHERE {condition}"
            f" ORDER BY arrival NULLS LAST, {_SHARD}, {_SEQUENCE} LIMIT {int(first)}",
            parameters,
        )
        cursor = self._run("FROM named")
        names = [str(column[0]) for column in cursor.description or ()]
        books = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        entries: dict[tuple[str, str], list[_Entry]] = {}
        for shard, number, *rest in self._all(
            f"SELECT {_SHARD}, {_SEQUENCE}, source, arrival, file, misplaced, payload, event"
            f" FROM read_parquet($file) SEMI JOIN named USING ({_SHARD}, {_SEQUENCE})"
            " ORDER BY source, file",
            {"file": self._entries.path},
        ):
            entries.setdefault((shard, number), []).append(_Entry(*rest))
        return [self._finding(kind, book, entries.get((book[_SHARD], book[_SEQUENCE]), [])) for book in books]

    def _finding(self, kind: Kind, book: Mapping[str, Any], entries: Sequence["_Entry"]) -> Finding:
        return Finding(
            kind,
            _detail(kind, book, entries),
            book[_SHARD],
            book[_SEQUENCE],
            None if book["arrival"] is None else _EPOCH + timedelta(microseconds=book["arrival"]),
            tuple(self._files[entry.file] for entry in entries if entry.file is not None),
        )

    def _compare_offers(
        self, terms: Terms, differences: Counter[Kind], first: int
    ) -> tuple[dict[str, int], list[Finding]]:
        parameters = {"offers_since": _micros(terms.offers_since)}
        erased = {"erased": self._erased.path, "offers": _OFFERS}
        self._database.execute(_OFFERS_DUE)
        self._database.execute(_OFFERS_SENT, {"file": self._offers.path})
        ((due, sent, distinct),) = self._all(
            "SELECT (SELECT count(*) FROM due), (SELECT coalesce(sum(times), 0)::BIGINT FROM sent),"
            " (SELECT count(*) FROM sent)"
        )
        findings = []
        for kind, query, detail in (
            (Kind.OFFER_MISSING, _MISSING, "enriched row has earned an offer that was not sent"),
            (Kind.OFFER_UNEXPECTED, _UNEXPECTED, "record of the offers stream that no enriched row has earned"),
        ):
            if kind is Kind.OFFER_UNEXPECTED and not terms.whole_lake:
                continue
            given = parameters if kind is Kind.OFFER_MISSING else erased
            ((count,),) = self._all(f"SELECT count(*) FROM ({query})", given)
            differences[kind] = count
            if not count:
                continue
            for shard, number, arrival in self._all(f"{query} ORDER BY 1, 2 LIMIT {int(first)}", given):
                at = None if arrival is None else _EPOCH + timedelta(microseconds=arrival)
                findings.append(Finding(kind, detail, shard, number, at))
        return {"due": due, "sent": sent, "repeats": sent - distinct}, findings

    def _all(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._run(query, parameters).fetchall()

    def _run(self, query: str, parameters: Mapping[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
        """Run a query with those of the parameters that it names."""
        used = {name: value for name, value in (parameters or {}).items() if f"${name}" in query}
        return self._database.execute(query, used)


class _Entry(NamedTuple):
    source: int
    arrival: int | None
    file: int | None
    misplaced: bool | None
    payload: int | None
    event: int | None


@dataclass(slots=True)
class _Sheet:
    """A Parquet file that grows; small pieces are gathered first, since a lake may have many small files."""

    file: Path
    schema: pa.Schema
    _pieces: list[pa.Table] = field(default_factory=list)
    _rows: int = 0
    _writer: Any = None

    @property
    def path(self) -> str:
        return str(self.file)

    def write(self, piece: pa.Table) -> None:
        self._pieces.append(piece)
        self._rows += piece.num_rows
        if self._rows >= 2 * ROWS_AT_A_TIME:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.file, self.schema)
        if self._pieces:
            self._writer.write_table(pa.concat_tables(self._pieces))
        self._pieces, self._rows = [], 0


_REWRITTEN: Final = ("part-replay-", "part-kept-", "part-erased-")
"""How files begin that may hold what a replay has put there, which sends no offers."""

_ENTRY: Final = pa.schema(
    [
        ("source", pa.uint8()),
        (_SHARD, pa.string()),
        (_SEQUENCE, pa.string()),
        ("arrival", pa.int64()),  # microseconds
        ("file", pa.int32()),
        ("misplaced", pa.bool_()),
        ("payload", pa.int64()),  # a digest, as is the next
        ("event", pa.int64()),  # of the event's columns, or of why it is none
        ("offer", pa.string()),  # the id of the offer that is earned
        ("owes", pa.bool_()),  # whether that offer has to have been sent
    ]
)
_OFFERS: Final = "offers"
_ERASED: Final = pa.schema([("kind", pa.string()), ("digest", pa.string())])  # a kind is a table, or _OFFERS
_DIGEST: Final = "left(sha256({}), 16)"  # as connectors.erasure.digest
_OFFER: Final = pa.schema([("offer_id", pa.string()), (_SHARD, pa.string()), (_SEQUENCE, pa.string())])

_COUNTS: Final = ", ".join(f"count(*) FILTER (source = {number}) AS {name}" for number, name in enumerate(SOURCES))
_BOOKS: Final = f"""
CREATE TABLE books AS
SELECT {_SHARD}, {_SEQUENCE}, {_COUNTS}, min(arrival) AS arrival, max(arrival) AS last_arrival,
  min(payload) AS payload, max(payload) AS other_payload, min(event) AS event, max(event) AS other_event,
  coalesce(bool_or(misplaced), false) AS misplaced, min(offer) AS offer,
  coalesce(bool_or(owes) FILTER (offer IS NOT NULL), false) AS owes
FROM read_parquet($file) GROUP BY {_SHARD}, {_SEQUENCE}
HAVING coalesce(min(arrival) >= $since, true) AND coalesce(min(arrival) < $until, true)
"""
_OUT: Final = " + ".join(OUTCOMES)
_WRONG: Final = {
    Kind.LOST: f"{_OUT} = 0 AND NOT gone",
    Kind.NOT_IN_RAW: "$archived AND raw = 0 AND NOT gone_from_raw",
    Kind.REPEATED: " OR ".join(f"{table} > 1" for table in TABLES),
    Kind.TWO_PLACES: " + ".join(f"({table} > 0)::INT" for table in OUTCOMES) + " > 1",
    Kind.NOT_ACCEPTED: "accepted = 0 AND coalesce(arrival >= $accepted_since, false)",
    Kind.CHANGED: "arrival <> last_arrival OR payload <> other_payload OR event <> other_event",
    Kind.MISPLACED: "misplaced",
}
_OFFERS_DUE: Final = f"""
CREATE TEMP TABLE due AS
SELECT offer, min({_SHARD}) AS {_SHARD}, min({_SEQUENCE}) AS {_SEQUENCE}, max(arrival) AS arrival, bool_or(owes) AS owes
FROM books WHERE offer IS NOT NULL GROUP BY offer
"""
_OFFERS_SENT: Final = f"""
CREATE TEMP TABLE sent AS
SELECT offer_id, count(*) AS times, min({_SHARD}) AS {_SHARD}, min({_SEQUENCE}) AS {_SEQUENCE}
FROM read_parquet($file) GROUP BY offer_id
"""
_MISSING: Final = (
    f"SELECT {_SHARD}, {_SEQUENCE}, arrival FROM due ANTI JOIN sent ON offer = offer_id"
    " WHERE owes AND arrival >= $offers_since"
)
_UNEXPECTED: Final = (
    f"SELECT {_SHARD}, {_SEQUENCE}, NULL FROM sent ANTI JOIN due ON offer = offer_id WHERE"
    f" {_DIGEST.format('offer_id')} NOT IN (SELECT digest FROM read_parquet($erased) WHERE kind = $offers)"
)


def _detail(kind: Kind, book: Mapping[str, Any], entries: Sequence[_Entry]) -> str:
    """Say what is wrong with a record, in the words of the tables."""
    places = [f"{book[source]} × {source}" if book[source] > 1 else source for source in SOURCES[1:] if book[source]]
    where = f"in {', '.join(places)}" if places else "nowhere in the lake"
    if kind is Kind.CHANGED:
        said = {
            name: {SOURCES[e.source]: value for e in entries if (value := getattr(e, name)) is not None}
            for name in ("arrival", "payload", "event")
        }
        names = {"arrival": "the arrival", "payload": "the payload", "event": "what the payload decodes to"}
        wrong = [
            f"{names[part]} differs between {' and '.join(values)}"
            for part, values in said.items()
            if len({getattr(e, part) for e in entries} - {None}) > 1
        ]
        return "; ".join(wrong)
    if kind is Kind.MISPLACED:
        return f"{', '.join(SOURCES[e.source] for e in entries if e.misplaced)}: not in the partition of its arrival"
    return where


def _scope(terms: Terms) -> dict[str, int | None]:
    return {"since": _micros(terms.since), "until": _micros(terms.until)}


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)


def _hour(partition: str) -> int | None:
    """Read the folders' names as hours since 1970; None if they name no hour."""
    parts = dict(part.split("=", 1) for part in partition.split("/") if "=" in part)
    try:
        moment = datetime(*(int(parts[name]) for name in ("year", "month", "day", "hour")), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except (KeyError, ValueError):
        return None
    return (moment - _EPOCH) // timedelta(hours=1)


def _elsewhere(arrival: pa.Array, hour: int | None) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    hours = np.asarray(arrival.fill_null(-1)) // _HOUR_MICROS
    return np.ones(len(hours), bool) if hour is None else hours != hour


def _events(source: str, columns: Mapping[str, pa.Array], payload: pa.Array | None, sample: pa.Array) -> list[int]:
    """Digest what each sampled record is, as its row says or as its payload decodes."""
    if source == "enriched":
        said = [columns[column.name].filter(sample) for column in EVENT if column.name in columns]
        return _digests(said) if len(said) == len(EVENT) else []  # else it is of an older description
    if source == "rejected":
        return _digests([columns[column.name].filter(sample) for column in REASON])
    if source == "suppressed" or payload is None:
        return []
    arrived = Arrived(
        pc.fill_null(payload.filter(sample), b""), {c.name: columns[c.name].filter(sample) for c in ORIGIN}
    )
    batch, rejected = read(arrived)
    good = iter(_digests([batch.columns[column.name] for column in EVENT]))
    bad = iter(_digests(list(reasons(rejected).values())))
    return [next(bad if row in rejected else good) for row in range(len(arrived.payload))]


def _offers(columns: Mapping[str, pa.Array]) -> pa.Array:
    """Say which offer each enriched row has earned."""
    viewed = columns["additional_data"].field("percent_viewed")
    clicks = zip(*(_values(c) for c in (columns["event_name"], viewed, columns["click_id"])), strict=True)
    return pa.array(
        [id_of_click(click) if earns(name, seen or 0) else None for name, seen, click in clicks], pa.string()
    )


def _digests(columns: Sequence[pa.Array]) -> list[int]:
    """Digest rows in 64 bits, the same for the same values whatever file they are from."""
    rows = zip(*(_values(flat) for column in columns for flat in _flat(column)), strict=True)
    encode = msgspec.msgpack.encode
    return [int.from_bytes(blake2b(encode(row), digest_size=8).digest(), "little", signed=True) for row in rows]


def _flat(column: pa.Array) -> list[pa.Array]:
    if pa.types.is_struct(column.type):
        return [flat for inner in column.flatten() for flat in _flat(inner)]
    return [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column]


def _values(column: pa.Array) -> list[Any]:
    """Return a column's values; with nulls the slow way, which does not make floats of integers."""
    return list(column.to_pylist()) if column.null_count else objects(column)


def _spread(sample: "np.ndarray[Any, np.dtype[np.bool_]]", digests: Sequence[int]) -> pa.Array:
    """Put the digests of the sampled rows in their places, null elsewhere."""
    if not digests:
        return pa.nulls(len(sample), pa.int64())
    if len(digests) == len(sample):
        return pa.array(digests, pa.int64())
    places = pa.array(np.cumsum(sample) - 1, mask=~sample)
    return pc.take(pa.array(digests, pa.int64()), places)
