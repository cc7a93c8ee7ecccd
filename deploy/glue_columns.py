"""The columns of the Glue tables, derived from the event's description."""

from typing import Final

import pyarrow as pa

from clickstream import offer
from clickstream.schema import ENRICHED, FLATTENED, OUTCOME, PARTITION, REJECTED, SUPPRESSED, glue_type

_INNER: Final = {column.name: column for column in ENRICHED.field("additional_data").type}
_TABLES: Final = {
    "enriched": ENRICHED,
    "flattened": FLATTENED,
    "rejected": REJECTED,
    "suppressed": SUPPRESSED,
    # Firehose writes what clients sent, a line each, be it JSON or not
    "raw": pa.schema([pa.field("payload", pa.string())]),
    # and the offers as they are in their stream: JSON, in which a time is text
    "offers": pa.schema(
        [
            pa.field("timestamp", pa.string()) if name == "timestamp" else _INNER.get(name) or OUTCOME.field(name)
            for name in offer.FIELDS
        ]
    ),
    "partitions": pa.schema(PARTITION),
}


def glue_columns(table: str) -> list[dict[str, str]]:
    """Return a table's columns as Glue lists them; `partitions` are the folders that all of them have."""
    return [{"Name": column.name, "Type": glue_type(column.type)} for column in _TABLES[table]]
