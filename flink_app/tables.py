"""The job's tables in Flink SQL, all columns derived from the schema."""

import pyarrow as pa

from clickstream.schema import (
    ENRICHED,
    FIRST,
    OFFER,
    ORIGIN,
    OUTCOME,
    PARTITION,
    RAW,
    REJECTED,
    SUPPRESSED,
    flink_columns,
)
from clickstream.settings import Settings

LAKE_TABLES = {"enriched": ENRICHED, "rejected": REJECTED, "suppressed": SUPPRESSED, "raw": RAW}

_METADATA = {"arrival_timestamp": "timestamp", "shard_id": "shard-id", "sequence_number": "sequence-number"}


def source(settings: Settings) -> str:
    """Write the table of records: a Kinesis stream's, untouched and with their origin, or a folder's to replay."""
    if settings.source.replay:
        options = {"connector": "filesystem", "path": settings.source.replay, **_PARQUET}
        return _create("records", flink_columns(RAW), options)
    origin = ",\n  ".join(
        f"`{column.name}` {_KINESIS_TYPES[column.type]} NOT NULL METADATA FROM '{_METADATA[column.name]}' VIRTUAL"
        for column in ORIGIN
    )
    options = {
        **_kinesis(settings.source.stream, settings),
        "scan.stream.initpos": settings.source.start,
        "scan.shard.getrecords.maxrecordcount": "10000",
        "scan.shard.getrecords.intervalmillis": "250",  # a shard is read five times a second at most, once by Firehose
        "format": "raw",
    }
    return _create("records", f"`payload` BYTES,\n  {origin}", options)


def lake(name: str, settings: Settings) -> str:
    """Write a table of the lake: Snappy Parquet in folders of the arrival hour, files committed with checkpoints.

    Its rows come as slices (`clickstream.slices`), unless de-duplication has to tell them apart.
    """
    columns = pa.schema([pa.field("slice", pa.binary())])
    options = {"connector": "filesystem", "path": f"{settings.lake.root.rstrip('/')}/{name}"}
    if settings.dedup.enabled:
        columns = LAKE_TABLES[name]
        # Payloads and sequence numbers never repeat: looking for repetition was a fifth of the JVM's time.
        dictionary = str(name in ("enriched", "suppressed")).lower()
        options |= {"parquet.compression": "SNAPPY", "parquet.enable.dictionary": dictionary, **_PARQUET}
    else:
        # One writer takes what several hundred thousand events a second come to, and leaves few and large files.
        options |= {"format": "parquet-slices", "sink.parallelism": str(settings.lake.writers)}
    whole = flink_columns(pa.schema([*columns, *PARTITION]))
    return _create(name, whole, options, [column.name for column in PARTITION])


def offers(settings: Settings) -> str:
    """Write the offers stream, partitioned by user."""
    options = {
        **_kinesis(settings.offers.stream, settings),
        "sink.flush-buffer.timeout": "20",  # ms; an offer is worth most while the user is still there
        "format": "json",
    }
    if settings.source.endpoint:
        options["sink.http-client.protocol.version"] = "HTTP1_1"  # stand-ins do not speak HTTP/2
    return _create("offers", flink_columns(OFFER), options, ["user_id"])


def written(settings: Settings) -> list[str]:
    """Name the tables of the lake that the job writes."""
    left_out = {"raw": not settings.lake.raw, "suppressed": not settings.dedup.enabled}
    return [name for name in LAKE_TABLES if not left_out.get(name)]


def clicks() -> str:
    """Write the query of the events, each with the origin of the first one of its click_id.

    State is that origin by click_id, and no row: it is forgotten as `table.exec.state.ttl` says. What was rejected has
    no click_id, and does not come by here.
    """
    columns = ", ".join(f"`{name}`" for name in [*ENRICHED.names, "offer_id", *(column.name for column in PARTITION)])
    first = ", ".join(f"FIRST_VALUE(`{its.name.removeprefix('first_')}`) OVER w AS `{its.name}`" for its in FIRST)
    return (
        f"SELECT {columns}, {first} FROM (SELECT *, PROCTIME() AS seen FROM outcomes WHERE reason IS NULL)"
        " WINDOW w AS (PARTITION BY click_id ORDER BY seen ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    )


_IS_FIRST = "shard_id = first_shard_id AND sequence_number = first_sequence_number"


def insert_lake(name: str, settings: Settings) -> str:
    """Write what fills a table of the lake from the outcomes."""
    hour = ", ".join(f"`{column.name}`" for column in PARTITION)
    if not settings.dedup.enabled:
        return f"INSERT INTO `{name}` SELECT `{name}`, {hour} FROM outcomes WHERE `{name}` IS NOT NULL"
    columns = ", ".join(f"`{column.name}`" for column in LAKE_TABLES[name])
    rows = {
        "enriched": f"clicks WHERE {_IS_FIRST}",
        "suppressed": f"clicks WHERE NOT ({_IS_FIRST})",
        "rejected": "outcomes WHERE reason IS NOT NULL",
        "raw": "outcomes",
    }
    return f"INSERT INTO `{name}` SELECT {columns}, {hour} FROM {rows[name]}"


def insert_offers(settings: Settings) -> str:
    """Write what fills the offers stream from the outcomes; which ones are offers is said in `clickstream.offer`."""
    if not settings.dedup.enabled:
        values = ", ".join(f"`offer_{name}`" for name in OFFER.names)
        return f"INSERT INTO offers SELECT {values} FROM outcomes WHERE offer_offer_id IS NOT NULL"
    columns = {
        "timestamp": "DATE_FORMAT(`timestamp`, 'yyyy-MM-dd HH:mm:ss.SSSSSS')",
        **{column.name: f"`additional_data`.`{column.name}`" for column in ENRICHED.field("additional_data").type},
    }
    values = ", ".join(columns.get(name, f"`{name}`") for name in OFFER.names)
    return f"INSERT INTO offers SELECT {values} FROM clicks WHERE {_IS_FIRST} AND offer_id IS NOT NULL"


_KINESIS_TYPES = {pa.string(): "VARCHAR(128)", OUTCOME.field("arrival_timestamp").type: "TIMESTAMP_LTZ(3)"}
_PARQUET = {
    "format": "parquet",
    # Flink's own default is INT96 in the JVM's zone.
    "parquet.write.int64.timestamp": "true",
    "parquet.timestamp.time.unit": "micros",
    "parquet.utc-timezone": "true",
}


def _kinesis(stream: str, settings: Settings) -> dict[str, str]:
    options = {"connector": "kinesis", "stream": stream, "aws.region": settings.source.region}
    if settings.source.endpoint:
        options["aws.endpoint"] = settings.source.endpoint
    return options


def _create(name: str, columns: str, options: dict[str, str], partitioned_by: list[str] | None = None) -> str:
    quoted = ",\n  ".join(f"'{key}' = '{value.replace(chr(39), chr(39) * 2)}'" for key, value in options.items())
    partitions = f" PARTITIONED BY ({', '.join(f'`{column}`' for column in partitioned_by)})" if partitioned_by else ""
    return f"CREATE TEMPORARY TABLE `{name}` (\n  {columns}\n){partitions} WITH (\n  {quoted}\n)"
