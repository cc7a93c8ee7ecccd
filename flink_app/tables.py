"""The job's tables in Flink SQL, all columns derived from the schema."""

import pyarrow as pa

from clickstream.schema import HOUR_PARTS, ORIGIN, PARTITION, RAW, flink_columns
from clickstream.settings import Settings

LAKE_TABLES = ("enriched", "rejected", "suppressed", "raw")

_METADATA = {"arrival_timestamp": "timestamp", "shard_id": "shard-id", "sequence_number": "sequence-number"}


def source(settings: Settings) -> str:
    """Write the table of records: a Kinesis stream's, untouched and with their origin, or a folder's to replay."""
    if settings.source.replay:
        options = {
            "connector": "filesystem",
            "path": settings.source.replay,
            "format": "parquet",
            "parquet.utc-timezone": "true",
        }
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
    """Write a table of the lake: slices of Parquet (`clickstream.slices`), files committed with checkpoints."""
    options = {
        "connector": "filesystem",
        "path": f"{settings.lake.root.rstrip('/')}/{name}",
        "format": "parquet-slices",
        # One writer takes what several hundred thousand events a second come to, and leaves few and large files.
        "sink.parallelism": str(settings.lake.writers),
    }
    columns = flink_columns(pa.schema([pa.field("slice", pa.binary()), *PARTITION]))
    return _create(name, columns, options, [column.name for column in PARTITION])


def offers(settings: Settings) -> str:
    """Write the offers stream, partitioned by user."""
    options = {
        **_kinesis(settings.offers.stream, settings),
        # An offer is worth most while the user is still there.
        "sink.flush-buffer.timeout": str(settings.to_fill(5)),  # milliseconds
        "format": "payload",
    }
    if settings.source.endpoint:
        options["sink.http-client.protocol.version"] = "HTTP1_1"  # stand-ins do not speak HTTP/2
    return _create("offers", "`user_id` STRING, `offer` BYTES", options, ["user_id"])


def written(settings: Settings) -> list[str]:
    """Name the tables of the lake that the job writes."""
    left_out = {"raw": not settings.lake.raw, "suppressed": not settings.dedup.enabled}
    return [name for name in LAKE_TABLES if not left_out.get(name)]


def clicks() -> str:
    """Write the query of the records, each with the origin of the first one of its click_id, as `batch.first` reads it.

    State is that origin by click_id, and no row: it is forgotten as `table.exec.state.ttl` says. What is no event has
    no click_id, and is the first and only one of its sequence number.
    """
    mine = ", ".join(f"`{column.name}`" for column in RAW)
    return (
        f"SELECT {mine}, FIRST_VALUE(CONCAT(shard_id, ' ', sequence_number)) OVER w AS `first`"
        " FROM (SELECT *, click_id_of(payload) AS click_id, PROCTIME() AS seen FROM records)"
        " WINDOW w AS (PARTITION BY click_id, CASE WHEN click_id IS NULL THEN sequence_number END"
        " ORDER BY seen ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    )


def arrived(settings: Settings) -> str:
    """Write the query of the records as they are packed."""
    columns = ", ".join(f"`{name}`" for name in [*RAW.names, *(["first"] if settings.dedup.enabled else [])])
    return f"SELECT {columns} FROM {'clicks' if settings.dedup.enabled else 'records'}"


def insert_lake(name: str) -> str:
    """Write what fills a table of the lake from the outcomes."""
    places = [HOUR_PARTS[column.name] for column in PARTITION]
    hour = ", ".join(f"SUBSTRING(its_key FROM {at.start + 1} FOR {at.stop - at.start})" for at in places)
    return f"INSERT INTO `{name}` SELECT content, {hour} FROM outcomes WHERE goes_to = '{name}'"


def insert_offers() -> str:
    """Write what fills the offers stream from the outcomes; which ones are offers is said in `clickstream.offer`."""
    return "INSERT INTO offers SELECT its_key, content FROM outcomes WHERE goes_to = 'offers'"


_KINESIS_TYPES = {pa.string(): "VARCHAR(128)", RAW.field("arrival_timestamp").type: "TIMESTAMP_LTZ(3)"}


def _kinesis(stream: str, settings: Settings) -> dict[str, str]:
    options = {"connector": "kinesis", "stream": stream, "aws.region": settings.source.region}
    if settings.source.endpoint:
        options["aws.endpoint"] = settings.source.endpoint
    return options


def _create(name: str, columns: str, options: dict[str, str], partitioned_by: list[str] | None = None) -> str:
    quoted = ",\n  ".join(f"'{key}' = '{value.replace(chr(39), chr(39) * 2)}'" for key, value in options.items())
    partitions = f" PARTITIONED BY ({', '.join(f'`{column}`' for column in partitioned_by)})" if partitioned_by else ""
    return f"CREATE TEMPORARY TABLE `{name}` (\n  {columns}\n){partitions} WITH (\n  {quoted}\n)"
