"""Starts localemu, under its own Python, as Kinesis, Firehose and S3, and mends where it is no Firehose.

`python localemu_firehose.py PORT`, in a folder of its own, with the project on PYTHONPATH. What is changed:

- a prefix's expressions are evaluated as AWS documents them under "Custom prefixes for Amazon S3 objects": localemu
  writes them into the key as they stand;
- on a Python 3.12 it finds `warnings.deprecated`, which came with 3.13.

All else is localemu's own: it reads each shard once a second and makes each read an object, and neither compresses it
nor ends a record with a line end, whatever is configured.
"""

import re
import sys
import warnings
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

SERVICES: Final = "cloudformation,firehose,iam,kinesis,kms,logs,s3,sts"
BY_DEFAULT: Final = "!{timestamp:yyyy/MM/dd/HH/}"  # is appended to a prefix that says nothing of the time
_EXPRESSION: Final = re.compile(r"!\{(.*?)\}")
_PATTERN: Final = {"yyyy": "%Y", "MM": "%m", "dd": "%d", "HH": "%H"}  # Java's to C's


def evaluated(prefix: str, arrived: datetime) -> str:
    """Evaluate a prefix for an object whose oldest record arrived then, in the time zone of `arrived`.

    An expression other than years, months, days and hours, such as Java's YYYY, the year of the week, is a ValueError.
    """

    def of(found: re.Match[str]) -> str:
        namespace, _, value = found[1].partition(":")
        letters = re.findall("[A-Za-z]+", value)
        if namespace != "timestamp" or not set(letters) <= _PATTERN.keys():
            raise ValueError(f"the prefix {prefix} has {found[0]}, which nobody here evaluates")
        return re.sub("[A-Za-z]+", lambda letters: arrived.strftime(_PATTERN[letters[0]]), value)

    return _EXPRESSION.sub(of, prefix if "!{timestamp:" in prefix else prefix + BY_DEFAULT)


def evaluate_prefixes() -> None:
    """Put an object under its evaluated prefix; the rest of its name remains what localemu calls it."""
    from localemu.services.firehose.provider import FirehoseProvider  # noqa: PLC0415

    put, path = FirehoseProvider._put_records_to_s3_bucket, FirehoseProvider._get_s3_object_path

    def put_under(self: Any, stream_name: str, records: list[dict[str, Any]], destination: dict[str, Any]) -> None:
        oldest = min(record["ApproximateArrivalTimestamp"] for record in records)  # milliseconds
        zone = ZoneInfo(destination.get("CustomTimeZone", "UTC"))
        arrived = datetime.fromtimestamp(oldest / 1000, UTC).astimezone(zone)
        put(self, stream_name, records, {**destination, "Prefix": evaluated(destination.get("Prefix", ""), arrived)})

    def path_under(self: Any, stream_name: str, prefix: str, file_extension: str) -> str:
        *_hour, name = path(self, stream_name, "", file_extension).split("/")
        return prefix + str(name)

    FirehoseProvider._put_records_to_s3_bucket = put_under
    FirehoseProvider._get_s3_object_path = path_under


def know_deprecated() -> None:
    """Have what localemu imports from a newer Python's library."""
    from typing_extensions import deprecated  # noqa: PLC0415

    vars(warnings).setdefault("deprecated", deprecated)


if __name__ == "__main__":
    from cli.localemu_front import serve

    serve(sys.argv[1], SERVICES, know_deprecated, evaluate_prefixes)
