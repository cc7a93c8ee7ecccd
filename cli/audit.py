"""The audit: what the stream accepted against the lake and the offers, and which records differ."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError

from cli import screen
from cli.ledger import OUTCOMES, TABLES, Finding, Ledger, Terms, Verdict
from clickstream.errors import ClickstreamError, Refused, Unavailable
from clickstream.schema import ENRICHED, ORIGIN, RAW, REJECTED
from connectors.kinesis_reader import read
from connectors.lake import Lake, LakeFile
from connectors.offers import read_offer

COLUMNS: Final = {
    "raw": RAW.names,
    "enriched": ENRICHED.names,
    "rejected": REJECTED.names,
    "suppressed": [column.name for column in ORIGIN],
}
ERASURES: Final = "_erasures"  # the records of `clickstream privacy erase`: which rows, of which table and shard
LOOKED_INTO: Final = 1_000_000  # records of which the columns are compared too, unless all are asked for
CLOCKS: Final = timedelta(minutes=5)  # how far the stream's clock and ours may be apart
HOURS_SHOWN: Final = 40


class BooksDoNotBalance(ClickstreamError):
    """What came out is not what went in."""


@dataclass(frozen=True)
class Audit:
    """What to compare: `clickstream audit --help` explains each. `client` is a boto3 Kinesis client."""

    lake: Lake
    client: Any = None
    stream: str | None = None
    offers: str | None = None
    manifests: Sequence[Path] = ()
    archived: bool = True
    deep: bool = False
    since: datetime | None = None
    until: datetime | None = None
    memory: str = "1GB"
    scratch: Path | None = None
    first: int = 20

    def __call__(self, files: dict[str, list[LakeFile]] | None = None) -> Verdict:
        """Compare all of the lake, or just these files of it by table."""
        chosen = files if files is not None else {table: self._files(table) for table in TABLES}
        terms = Terms(
            archived=self.archived,
            accepted_since=self._horizon(self.stream),
            offers_since=self._horizon(self.offers),
            whole_lake=self.since is None and self.until is None,
            since=self.since,
            until=self.until,
        )
        try:
            return self._compare(chosen, terms)
        except duckdb.Error as error:
            raise Refused(
                f"the comparison could not be made ({_first_line(error)}). Next: give more to --memory, or a --folder"
                f" with more room"
            ) from None

    def _compare(self, chosen: dict[str, list[LakeFile]], terms: Terms) -> Verdict:
        one_in = 1 if self.deep else max(1, self._rows(chosen) // LOOKED_INTO)
        with (
            tempfile.TemporaryDirectory(prefix="audit-", dir=self.scratch) as scratch,
            Ledger(Path(scratch), memory=self.memory, one_in=one_in) as ledger,
            screen.progress(screen.err) as progress,
        ):
            taken = 0
            for table, listed in chosen.items():
                for file in listed:
                    taken += self._take_in(ledger, table, file)
                    progress.show(f"{taken:,} rows of the lake taken in, now {table} {file.partition}")
            for file in self.lake.files(ERASURES):
                _take_in_erased(ledger, self.lake, file)
            for manifest in self.manifests:
                _accept_manifest(ledger, manifest)
            if self.stream is not None:
                progress.show(f"reading the stream {self.stream}")
                ledger.accept(self._records(self.stream))
            if self.offers is not None:
                progress.show(f"reading the stream {self.offers}")
                ledger.add_offers(self._sent(self.offers))
            progress.show("comparing")
            return ledger.close(terms, first=self.first)

    def _files(self, table: str) -> list[LakeFile]:
        """List the files to look at; with a manifest, all: what it names may be in any hour."""
        files = self.lake.files(table)
        if self.manifests:
            return files
        first, last = _partition(self.since or datetime.min), _partition(self.until or datetime.max)
        return [file for file in files if first <= file.partition <= last or not file.partition.startswith("year=")]

    def _rows(self, files: dict[str, list[LakeFile]]) -> int:
        """Estimate from their size how many records there are: asking each footer would take another look at all."""
        return sum(file.size for file in files.get("raw") or files.get("enriched") or []) // 50

    def _take_in(self, ledger: Ledger, table: str, file: LakeFile) -> int:
        try:
            return ledger.add(table, file.path, file.partition, self.lake.batches(file, COLUMNS[table]))
        except (OSError, pa.ArrowException, KeyError) as error:
            if not self.lake.has(file):
                raise Unavailable(
                    f"{file.path} is gone since the audit has begun: something rewrites the lake. Next: audit again"
                ) from None
            why = f"has no column {error}" if isinstance(error, KeyError) else _first_line(error)
            ledger.add_unreadable(file.path, why)
            return 0

    def _records(self, stream: str) -> Iterator[tuple[bytes, str, str, datetime]]:
        with closing(read(self.client, stream)) as records:
            yield from records

    def _sent(self, stream: str) -> Iterator[tuple[str, str, str]]:
        """Read the offers; a record that is none counts as one nobody has earned."""
        with closing(read(self.client, stream)) as records:
            for record in records:
                offer = read_offer(record.data)
                yield (offer.offer_id if offer else ""), record.shard_id, record.sequence_number

    def _horizon(self, stream: str | None) -> datetime | None:
        """Say from when on a stream holds everything: since it was made, or for as long as it keeps records."""
        if stream is None:
            return None
        try:
            told = self.client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
        except (BotoCoreError, ClientError) as error:
            raise Refused(f"Kinesis stream {stream} cannot be described: {error}. Next: check its name") from error
        made: datetime = told["StreamCreationTimestamp"].astimezone(UTC)
        kept = datetime.now(UTC) - timedelta(hours=told["RetentionPeriodHours"]) + CLOCKS
        return max(made - CLOCKS, kept)


def _partition(moment: datetime) -> str:
    return f"year={moment.year:04}/month={moment.month:02}/day={moment.day:02}/hour={moment.hour:02}"


def _take_in_erased(ledger: Ledger, lake: Lake, file: LakeFile) -> None:
    for batch in lake.batches(file, ["table", "origins", "offers"]):
        for row in batch.to_pylist():
            if row["table"] in TABLES:
                ledger.add_erased(**row)


def _accept_manifest(ledger: Ledger, manifest: Path) -> None:
    try:
        ledger.accept_manifest(manifest)
    except (msgspec.MsgspecError, pa.ArrowException, KeyError, UnicodeDecodeError, OSError) as error:
        why = f"has no column {error}" if isinstance(error, KeyError) else _first_line(error)
        raise Refused(
            f"{manifest} is no manifest ({why}): give JSON lines or Parquet with shard_id and"
            f" sequence_number, as `clickstream generate --manifest` writes them"
        ) from None


def show(verdict: Verdict) -> None:
    """Print the books by hour and shard, and the first differences."""
    columns = ["hour (UTC)", "shard", "accepted", "raw", *OUTCOMES, "erased", "offers due", "differ"]
    hours = verdict.hours
    if len(hours) > HOURS_SHOWN:
        hours = [row for row in hours if row["differences"]][:HOURS_SHOWN]
    rows = [
        [
            row["hour"] and f"{row['hour']:%Y-%m-%d %H}",
            *(value for name, value in row.items() if name != "hour"),
        ]
        for row in hours
    ]
    rows.append(
        ["all", "", *(verdict.totals[name] for name in ("accepted", *TABLES, "erased"))]
        + [sum(row[name] for row in verdict.hours) for name in ("offers_due", "differences")]
    )
    more = "" if len(hours) == len(verdict.hours) else f", {len(hours):,} of {len(verdict.hours):,} hours and shards"
    screen.table(f"records by hour of arrival{more}", columns, rows, right=tuple(range(2, len(columns))))
    if verdict.first:
        named = [
            [found.kind, found.shard_id, found.sequence_number, f"{found.detail}{_files(found)}"]
            for found in verdict.first
        ]
        screen.table("what differs, the first of each kind", ["", "shard", "sequence number", ""], named)
    screen.out.print()


def check(verdict: Verdict) -> None:
    """Raise unless everything that was accepted has come out as exactly one thing."""
    if not verdict.balanced:
        raise BooksDoNotBalance(str(verdict))


def _files(finding: Finding) -> str:
    return f": {', '.join(finding.files)}" if finding.files else ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
