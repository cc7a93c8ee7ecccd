"""The columns of the Glue tables, derived from the event's description."""

from typing import Final

import pyarrow as pa

from clickstream.schema import ENRICHED, FLATTENED, OFFER, PARTITION, REJECTED, SUPPRESSED, glue_type

_TABLES: Final = {
    "enriched": ENRICHED,
    "flattened": FLATTENED,
    "rejected": REJECTED,
    "suppressed": SUPPRESSED,
    # Firehose writes what clients sent, a line each, be it JSON or not
    "raw": pa.schema([pa.field("payload", pa.string())]),
    "offers": OFFER,
    "partitions": pa.schema(PARTITION),
}


def glue_columns(table: str) -> list[dict[str, str]]:
    """Return a table's columns as Glue lists them; `partitions` are the folders that all of them have."""
    return [{"Name": column.name, "Type": glue_type(column.type)} for column in _TABLES[table]]
