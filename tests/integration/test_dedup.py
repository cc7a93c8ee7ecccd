"""An event that a client sends again is in the lake once, and in the offers once, across a restart too."""

import random
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from cli.audit import Audit
from cli.replay import Replay
from cli.servers import Kinesalite, RedisServer
from clickstream.settings import Dedup, Geo, Lake, Offers, Redis, Settings, Source
from connectors.lake import Lake as LakeDoor
from generator.malformed import mixed
from generator.records import Record
from generator.shoppers import Shoppers
from tests.jobs import GEO, publish, run_until_committed, stream_records, table_rows, written

EVENTS = 1_000


def sent_again(records: Iterable[Record]) -> list[Record]:
    """Send events once more under other keys, so that some come in by another shard."""
    return [one._replace(partition_key=one.partition_key[::-1] + "x") for one in records]


def origin(row: dict[str, Any], prefix: str = "") -> tuple[str, str]:
    return row[f"{prefix}shard_id"], row[f"{prefix}sequence_number"]


def test_what_is_sent_again_is_suppressed_and_says_what_it_repeats(
    kinesalite: Kinesalite, redis_server: RedisServer, redis: Any, stream: str, tmp_path: Path
) -> None:
    kinesalite.create_stream(f"{stream}-offers")
    settings = Settings(
        lake=Lake(root=(tmp_path / "lake").as_uri()),
        source=Source(stream=stream, endpoint=kinesalite.endpoint),
        offers=Offers(stream=f"{stream}-offers"),
        redis=Redis(url=redis_server.url),
        geo=Geo(mmdb=str(GEO)),
        dedup=Dedup(enabled=True),
    )
    records = list(islice(mixed(Shoppers(5).records(), 0.02, random.Random(5)), EVENTS))
    publish(kinesalite, stream, [*records, *sent_again(records[:100])])
    run_until_committed(settings, tmp_path / "job", EVENTS + 100)

    publish(kinesalite, stream, sent_again(records[50:150]))
    run_until_committed(settings, tmp_path / "job", 100, recover=True)

    out = written(settings, kinesalite)
    suppressed = table_rows(settings, "suppressed")
    clicks = Counter(row["click_id"] for row in out.enriched)
    assert set(clicks.values()) == {1}
    assert len(clicks) == EVENTS - EVENTS // 50
    assert len(out.enriched) + len(out.rejected) + len(suppressed) == len(out.raw) == EVENTS + 200
    assert len(suppressed) == 200 - (len(out.rejected) - EVENTS // 50)
    kept = {row["click_id"]: row for row in out.enriched}
    for row in suppressed:
        first = kept[row["click_id"]]
        assert origin(row, "first_") == origin(first) != origin(row)
        assert {name: row[name] for name in ("user_id", "timestamp", "additional_data")} == {
            name: first[name] for name in ("user_id", "timestamp", "additional_data")
        }
    offers = Counter(one["offer_id"] for one in out.offers)
    assert offers
    assert set(offers.values()) == {1}
    with closing(kinesalite.client()) as client:
        lake = LakeDoor(settings.lake.root)
        audit = Audit(lake, client, stream=stream, offers=settings.offers.stream, scratch=tmp_path)()
    assert audit.balanced, str(audit)
    assert audit.totals["suppressed"] == len(suppressed)

    Replay(source=str(tmp_path / "lake" / "raw"), folder=tmp_path / "replay", lake=str(tmp_path / "lake"), geo=GEO)()

    again = Counter(row["click_id"] for row in table_rows(settings, "enriched"))
    assert again == clicks
    assert len(stream_records(kinesalite, stream)) == EVENTS + 200
    assert Audit(LakeDoor(settings.lake.root), scratch=tmp_path)().balanced
