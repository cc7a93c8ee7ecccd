"""A polars batch, the ceiling: all records in memory at once, and nothing written before all is worked out.

In bulk it reads events of the one spelling that the generator's browsers use; any other record goes the job's own way,
one by one. Memory grows with the input, and there is no commit before the end.
"""

import io
from collections.abc import Collection, Iterator
from datetime import UTC
from itertools import islice
from typing import TypeVar

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from clickstream.decode import Rejected, decode, is_ip
from clickstream.event import Event
from clickstream.place import Place, public_address
from clickstream.schema import ENRICHED, EVENT, REASON, REJECTED
from connectors.geo_mmdb import Mmdb
from connectors.redis_door import RedisDoor
from enrichment.steps import MAX_CLOCK_LEAD
from tests.bench.peers.given import Given, end, last_accesses, partition, ready, say

A_TRIP = 10_000  # keys
T = TypeVar("T")

MOMENT = r'"[0-9]{4}-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]\.[0-9]{6}"'
TEXT = r'"[ !#-\[\]-~]+"'
NUMBER = r"(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?"
USUAL = (
    rf'^\{{"timestamp": {MOMENT}, "user_id": {TEXT}, "pixel_id": {TEXT}, "click_id": {TEXT}, '
    rf'"insertion_timestamp": {MOMENT}, "event_name": "(?:Search|AddToCart|ViewContent|Purchase)", '
    rf'"user_ip": "[0-9a-f:.]+", "additional_data": \{{"time_on_data": {NUMBER}, "percent_viewed": {NUMBER}, '
    rf'"product_id": [1-9][0-9]{{0,17}}, "price": {NUMBER}\}}\}}$'
)
LONGEST = 128
IDS = ("user_id", "pixel_id", "click_id")
TIMESTAMPS = ("timestamp", "insertion_timestamp")
REASONS = tuple(column.name for column in REASON)
EVENTS = pl.Schema(pl.from_arrow(pa.schema(EVENT).empty_table()).schema)
LINES = pl.Schema({**EVENTS, **dict.fromkeys(TIMESTAMPS, pl.String)})


def main() -> None:
    """Process the share of one process."""
    given = Given.read()
    door, geo = given.door(), given.geo()
    door.check()
    ready()
    raw = pl.from_arrow(pa.concat_tables([pq.ParquetFile(file).read() for file in given.files]))
    assert isinstance(raw, pl.DataFrame)
    events, rejected = read(raw)
    enriched = events.join(places(events["user_ip"], door, geo), on="user_ip", how="left").join(
        names(events["user_id"], door), on="user_id", how="left"
    )
    keep_last_accesses(enriched, door)
    write(given, "raw", raw)
    write(given, "rejected", rejected)
    write(given, "enriched", enriched.select(ENRICHED.names))
    say(raw.height)
    end()


def read(raw: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decode everything: the events, and what is none with the reason, each with its origin."""
    is_ascii = pl.Series([payload.isascii() for payload in raw["payload"]], dtype=pl.Boolean)
    plain = raw.filter(is_ascii)
    is_usual = plain["payload"].cast(pl.String).str.contains(USUAL)
    usual = plain.filter(is_usual)
    lines = io.BytesIO(b"\n".join(usual["payload"]))
    events = pl.read_ndjson(lines, schema=LINES).hstack(usual.drop("payload"))
    events = events.with_columns(
        pl.col(*TIMESTAMPS).str.to_datetime("%Y-%m-%d %H:%M:%S%.6f", time_unit="us", time_zone="UTC", strict=False)
    )
    addresses = events["user_ip"].unique()
    no_addresses = addresses.filter(pl.Series([not is_ip(address) for address in addresses], dtype=pl.Boolean))
    is_right = events.select(
        pl.all_horizontal(
            pl.col(*TIMESTAMPS).is_not_null(),
            pl.col(*IDS).str.len_bytes() <= LONGEST,
            pl.col("additional_data").struct.field("percent_viewed") <= 100,
            ~pl.col("user_ip").is_in(no_addresses.implode()),
        )
    ).to_series()
    others, rejected = read_slowly(pl.concat([raw.filter(~is_ascii), plain.filter(~is_usual), usual.filter(~is_right)]))
    return pl.concat([events.filter(is_right), others]), rejected


def read_slowly(raw: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decode as `read` does, one by one."""
    decoded = [decode(payload) for payload in raw["payload"]]
    is_event = pl.Series([isinstance(one, Event) for one in decoded], dtype=pl.Boolean)
    events = [
        msgspec.structs.asdict(one)
        | {name: getattr(one, name).replace(tzinfo=UTC) for name in TIMESTAMPS}
        | {"additional_data": msgspec.structs.asdict(one.additional_data)}
        for one in decoded
        if isinstance(one, Event)
    ]
    why = [[getattr(one, name) for name in REASONS] for one in decoded if isinstance(one, Rejected)]
    reasons = pl.DataFrame(why, schema=dict.fromkeys(REASONS, pl.String), orient="row")
    return (
        pl.DataFrame(events, schema=EVENTS).hstack(raw.filter(is_event).drop("payload")),
        raw.filter(~is_event).hstack(reasons).select(REJECTED.names),
    )


def places(addresses: pl.Series, door: RedisDoor, geo: Mmdb) -> pl.DataFrame:
    """Look up each address: in Redis, or else in the database, and tell Redis."""
    spelled = {address: public_address(address) for address in addresses.unique()}
    found: dict[str, Place | None] = {}
    for some in trips({public for public in spelled.values() if public}):
        known = door.read(some, [], take_on=False).places
        asked = geo.find([address for address in some if address not in known])
        if asked:
            door.write(asked)
        found.update(known)
        found.update(asked)
    rows = [(address, *_place(found.get(public) if public else None)) for address, public in spelled.items()]
    columns = ("user_ip", "country", "region", "city", "geo_status")
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def names(user_ids: pl.Series, door: RedisDoor) -> pl.DataFrame:
    """Look up each user's name in Redis."""
    found: dict[str, str] = {}
    users = user_ids.unique().to_list()
    for some in trips(users):
        found |= door.read([], some, take_on=False).names
    rows = [(user, found.get(user), "found" if user in found else "unknown") for user in users]
    return pl.DataFrame(rows, schema=dict.fromkeys(("user_id", "name", "name_status"), pl.String), orient="row")


def keep_last_accesses(enriched: pl.DataFrame, door: RedisDoor) -> None:
    """Tell Redis when each user was last seen, and where."""
    number = pl.col("sequence_number").str.strip_chars_start("0")
    place = pl.concat_str("city", "region", "country", separator=", ", ignore_nulls=True)
    newest = (
        enriched.select(
            "user_id",
            pl.min_horizontal("timestamp", pl.col("arrival_timestamp") + MAX_CLOCK_LEAD).alias("moment"),
            "sequence_number",
            pl.when(pl.col("geo_status") == "found").then(place).otherwise(pl.lit("unknown")).alias("location"),
        )
        .sort("moment", number.str.len_bytes(), number)
        .unique("user_id", keep="last")
        .with_columns(pl.col("moment").dt.strftime("%Y-%m-%d %H:%M:%S%.6f"))
    )
    for some in trips(newest.rows()):
        door.keep_newest(last_accesses(some))


def write(given: Given, name: str, rows: pl.DataFrame) -> None:
    """Write a table: Snappy Parquet, a file an hour of arrival."""
    rows = rows.with_columns((pl.col("arrival_timestamp").dt.epoch("s") // 3600).alias("hour"))
    for (hour,), some in rows.partition_by("hour", as_dict=True, include_key=False).items():
        file = given.lake / name / partition(hour) / f"part-{given.index}"
        file.parent.mkdir(parents=True, exist_ok=True)
        some.write_parquet(file, compression="snappy")


def trips(values: Collection[T]) -> Iterator[list[T]]:
    """Part values into as many as go to Redis at a time."""
    rest = iter(values)
    while some := list(islice(rest, A_TRIP)):
        yield some


def _place(place: Place | None) -> tuple[str | None, str | None, str | None, str]:
    return (place.country, place.region, place.city, "found") if place else (None, None, None, "unknown")


if __name__ == "__main__":
    main()
