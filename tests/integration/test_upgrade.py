"""A new release takes over from the savepoint of the one before."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cli.audit import Audit
from cli.job import JobProcess
from cli.servers import PROJECT, Kinesalite, RedisServer
from clickstream.settings import Geo, Lake, Offers, Redis, Settings, Source
from connectors.lake import Lake as LakeDoor
from flink_app.state import is_savepoint, latest
from generator.records import Record
from generator.shoppers import Shoppers
from tests.jobs import GEO, PATIENCE, publish, table_rows

EVENTS = 1_000
PACKAGES = ("clickstream", "enrichment", "connectors", "flink_app")


def with_campaigns(records: Iterator[Record]) -> Iterator[Record]:
    """Let clients send a field that this release does not know yet."""
    for record in records:
        yield record._replace(payload=json.dumps({**json.loads(record.payload), "campaign": "spring"}).encode())


def next_release(folder: Path) -> Path:
    """Make a release that knows a field more, and whose SQL is another."""
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, folder / package, ignore=shutil.ignore_patterns("target", "__pycache__"))
    (folder / "flink_app" / "target").symlink_to(PROJECT / "flink_app" / "target")
    field = "    pixel_id: Identifier\n"
    _edit(folder / "clickstream" / "event.py", field, f"{field}    campaign: Identifier\n")
    _edit(
        folder / "flink_app" / "tables.py",
        "FROM outcomes WHERE goes_to = 'offers'",
        "FROM outcomes WHERE its_key <> 'none' AND content IS NOT NULL AND goes_to = 'offers'",
    )
    return folder


def _edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_a_release_with_a_field_more_and_other_sql_goes_on_from_the_savepoint(
    kinesalite: Kinesalite, redis_server: RedisServer, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinesalite.create_stream(f"{stream}-offers")
    settings = Settings(
        lake=Lake(root=(tmp_path / "lake").as_uri()),
        source=Source(stream=stream, endpoint=kinesalite.endpoint),
        offers=Offers(stream=f"{stream}-offers"),
        redis=Redis(url=redis_server.url),
        geo=Geo(mmdb=str(GEO)),
    )
    records = with_campaigns(Shoppers(3).records())
    publish(kinesalite, stream, islice(records, EVENTS))
    with JobProcess(settings, tmp_path / "job", checkpoint_seconds=1) as job:
        _wait_for_rows(job, settings, EVENTS)
        job.stop()
    of_this_release = {file.path for file in LakeDoor(settings.lake.root).files("enriched")}
    savepoint = latest(tmp_path / "job")
    assert savepoint is not None
    assert is_savepoint(savepoint)

    publish(kinesalite, stream, islice(records, EVENTS))
    monkeypatch.setattr("cli.job.PROJECT", next_release(tmp_path / "next"))
    with JobProcess(settings, tmp_path / "next-job", checkpoint_seconds=1, begin_from=savepoint) as job:
        _wait_for_rows(job, settings, 2 * EVENTS)
        job.stop()

    files = LakeDoor(settings.lake.root).files("enriched")
    campaigns: Counter[Any] = Counter()
    for file in files:
        columns = pq.read_schema(file.path).names
        assert ("campaign" in columns) == (file.path not in of_this_release)
        if "campaign" in columns:
            campaigns.update(pq.ParquetFile(file.path).read(["campaign"])["campaign"].to_pylist())
    assert campaigns == {"spring": EVENTS}
    origins = Counter((row["shard_id"], row["sequence_number"]) for row in table_rows(settings, "raw"))
    assert len(origins) == 2 * EVENTS
    assert set(origins.values()) == {1}
    with closing(kinesalite.client()) as client:
        audit = Audit(
            LakeDoor(settings.lake.root), client, stream=stream, offers=f"{stream}-offers", scratch=tmp_path
        )()
    assert audit.balanced, str(audit)


def _wait_for_rows(job: JobProcess, settings: Settings, count: int) -> None:
    lake = LakeDoor(settings.lake.root)
    deadline = time.monotonic() + PATIENCE
    while min(_rows(lake, table) for table in ("enriched", "raw")) < count:
        job.check()
        assert time.monotonic() < deadline, f"see {job.log}"
        time.sleep(0.2)


def _rows(lake: LakeDoor, table: str) -> int:
    return sum(lake.rows(file) for file in lake.files(table))
