"""The columns of every table, derived from the event's description as Arrow types, which Parquet shares."""

from typing import Final

import pyarrow as pa
from msgspec import inspect

from clickstream import offer
from clickstream.event import Event

UTC_MICROS: Final = pa.timestamp("us", tz="UTC")
"""Every timestamp of the lake: INT64 microseconds, which Athena, Redshift Spectrum, DuckDB and pyarrow read as UTC."""


def arrow_type(described: inspect.Type) -> pa.DataType:
    """Translate a type of the description; `TypeError` for one that has no column type yet."""
    match described:
        case inspect.Metadata(type=inner):
            return arrow_type(inner)
        case inspect.StructType(fields=fields):
            return pa.struct([pa.field(f.encode_name, arrow_type(f.type)) for f in fields])
        case inspect.StrType() | inspect.LiteralType():
            return pa.string()
        case inspect.DateTimeType():
            return UTC_MICROS
        case inspect.FloatType():
            return pa.float64()
        case inspect.IntType():
            return pa.int64()
        case _:
            raise TypeError(f"no column type for {described}")


def flink_type(column: pa.DataType) -> str:
    """Write an Arrow type in Flink SQL."""
    if pa.types.is_struct(column):
        return f"ROW<{', '.join(f'`{f.name}` {flink_type(f.type)}' for f in column)}>"
    names = {
        pa.string(): "STRING",
        pa.float64(): "DOUBLE",
        pa.int64(): "BIGINT",
        pa.binary(): "BYTES",
        UTC_MICROS: "TIMESTAMP_LTZ(6)",
    }
    return names[column]


def glue_type(column: pa.DataType) -> str:
    """Write an Arrow type as Hive does, for Glue, Athena and Redshift Spectrum."""
    if pa.types.is_struct(column):
        return f"struct<{','.join(f'{f.name}:{glue_type(f.type)}' for f in column)}>"
    names = {
        pa.string(): "string",
        pa.float64(): "double",
        pa.int64(): "bigint",
        pa.binary(): "binary",
        UTC_MICROS: "timestamp",
    }
    return names[column]


def flink_columns(schema: pa.Schema) -> str:
    """Write a schema as the column list of a Flink CREATE TABLE."""
    return ",\n  ".join(f"`{field.name}` {flink_type(field.type)}" for field in schema)


def _fields(**columns: pa.DataType) -> tuple[pa.Field, ...]:
    return tuple(pa.field(name, type_) for name, type_ in columns.items())


EVENT: Final = tuple(arrow_type(inspect.type_info(Event)))
ENRICHMENT: Final = _fields(
    name=pa.string(),
    country=pa.string(),  # ISO 3166-1 alpha-2
    region=pa.string(),
    city=pa.string(),
    geo_status=pa.string(),
    name_status=pa.string(),
)
ORIGIN: Final = _fields(arrival_timestamp=UTC_MICROS, shard_id=pa.string(), sequence_number=pa.string())
"""Where a record was accepted: its unique id, in every table."""
FIRST: Final = _fields(first_shard_id=pa.string(), first_sequence_number=pa.string())
"""Which record was the first of its click_id: null in that one itself."""
REASON: Final = _fields(stage=pa.string(), reason=pa.string(), field=pa.string())
PARTITION: Final = _fields(year=pa.string(), month=pa.string(), day=pa.string(), hour=pa.string())
"""The arrival hour in UTC, zero-padded; folders in the lake, not columns of the files."""

ENRICHED: Final = pa.schema([*EVENT, *ENRICHMENT, *ORIGIN])
FLATTENED: Final = pa.schema(
    [inner for column in ENRICHED for inner in (column.type if pa.types.is_struct(column.type) else [column])]
)
"""What the flatten job makes of `enriched`: the fields of `additional_data` as columns in its place."""
RAW: Final = pa.schema([pa.field("payload", pa.binary()), *ORIGIN])
SUPPRESSED: Final = pa.schema([*ENRICHED, *FIRST])
REJECTED: Final = pa.schema([pa.field("payload", pa.binary()), *REASON, *ORIGIN])

_FLAT: Final = pa.schema([*EVENT, *ENRICHED.field("additional_data").type, *_fields(offer_id=pa.string())])
OFFER: Final = pa.schema(
    [pa.field(name, pa.string() if name == "timestamp" else _FLAT.field(name).type) for name in offer.FIELDS]
)
"""The offers as they are in their stream: JSON, in which a time is text."""

OUTCOME: Final = _fields(goes_to=pa.string(), its_key=pa.string(), content=pa.binary())
"""What becomes of a batch, a row each: a slice of Parquet that goes to a table of the lake, its key the hour as
`2021-07-12T09`, or the JSON of an offer that goes to `offers`, its key the user."""
HOUR_PARTS: Final = {"year": slice(0, 4), "month": slice(5, 7), "day": slice(8, 10), "hour": slice(11, 13)}
"""Where in the key of a slice the partition's columns are."""
