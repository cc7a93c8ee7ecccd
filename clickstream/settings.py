"""The settings, read once from the file that Managed Flink hands to a job; a laptop uses a file of the same shape.

The file is a list of property groups, `{"PropertyGroupId": "lake", "PropertyMap": {"root": "s3://…"}}`, every value a
string. The group is a class here and the key one of its fields, with dots for underscores. Secrets are not settings:
a setting says where one is (`env:NAME`, `secretsmanager:NAME`, an ARN), never what it is.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Struct

from clickstream.errors import Refused

MANAGED_FLINK_FILE: Final = "/etc/flink/application_properties.json"
FILE_VARIABLE: Final = "CLICKSTREAM_PROPERTIES"

Positive = Annotated[int, msgspec.Meta(ge=1)]


class _Group(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=lambda name: name.replace("_", ".")):
    pass


class Source(_Group, frozen=True):
    """Where records come from: a Kinesis stream, or a folder of raw or rejected Parquet to replay."""

    stream: str = "clicks"
    region: str = "us-east-1"
    endpoint: str | None = None  # of a stand-in for Kinesis, such as http://127.0.0.1:4567
    start: Literal["TRIM_HORIZON", "LATEST"] = "TRIM_HORIZON"
    replay: str | None = None  # a folder or URI; with it the job is bounded, and reads no stream


class Offers(_Group, frozen=True):
    """Where offers go."""

    stream: str = "offers"
    enabled: bool = True


class Lake(_Group, frozen=True):
    """Where the tables are: a folder, or an s3:// URI."""

    root: str
    raw: bool = True  # off where Firehose archives
    writers: int = 1  # of each table, each with a file an hour and checkpoint; not with de-duplication
    endpoint: str | None = None  # of an S3 that is not Amazon's


class Redis(_Group, frozen=True):
    """The workers' common memory."""

    url: str = "redis://127.0.0.1:6379/0"
    password: str | None = None  # where it is, not what it is
    timeout: float = 0.5  # seconds


class Geo(_Group, frozen=True):
    """Who knows where addresses are."""

    provider: Literal["mmdb", "ipinfo"] = "mmdb"
    mmdb: str = ".data/geo/GeoLite2-City.mmdb"
    ipinfo_token: str | None = "env:IPINFO_TOKEN"  # noqa: S105  # where it is, not what it is
    ipinfo_url: str = "https://ipinfo.io"
    budget: float = 0.2  # seconds a batch waits for a metered provider


class Privacy(_Group, frozen=True):
    """What is stored of addresses, in the lake's rows, in archived bytes, and in Redis. docs/analytics.md says more."""

    ip: Literal["keep", "truncate", "hash"] = "keep"
    key: str | None = None  # where the key of the hashes is, not what it is; needed unless addresses are kept


class Dedup(_Group, frozen=True):
    """Whether an event that a client sends again is kept out of the lake and the offers, and for how long."""

    enabled: bool = False  # what it costs: docs/performance.md
    seconds: int = 600  # a click_id is remembered for at least so long after it was last seen


class Job(_Group, frozen=True):
    """How the job trades latency for throughput, and memory for round trips."""

    batch_size: Positive = 10_000  # records a call of the Python function, at most; fewer if they come to 16 MiB
    batch_millis: int = 50  # the longest a record of a stream waits for its batch to fill
    bundle_batches: Positive = 1  # sent to Python before it is waited for; best left alone
    bundle_millis: int = 1_000  # the longest a batch waits for such a bundle to fill, if it is more than one
    remembered_places: int = 200_000  # a worker
    remembered_names: int = 200_000  # a worker


PATIENCE: Final = 40
"""How much longer batches, and requests to the offers stream, may fill in a replay: nobody waits for its offers, and
each costs (docs/performance.md)."""


class Settings(Struct, frozen=True, kw_only=True):
    """Everything the job is told."""

    lake: Lake
    source: Source = Source()
    offers: Offers = Offers()
    redis: Redis = Redis()
    geo: Geo = Geo()
    privacy: Privacy = Privacy()
    dedup: Dedup = Dedup()
    job: Job = Job()

    def to_fill(self, millis: int) -> int:
        """Return for how many milliseconds something may wait to be full: for these, in a replay for longer."""
        return millis * (PATIENCE if self.source.replay else 1)

    def to_properties(self) -> bytes:
        """Write the file that `read_settings` reads."""
        groups = []
        for name in self.__struct_fields__:
            values = msgspec.to_builtins(getattr(self, name))
            texts = {key: _text(value) for key, value in values.items() if value is not None}
            groups.append({"PropertyGroupId": name, "PropertyMap": texts})
        return msgspec.json.format(msgspec.json.encode(groups))


class _PropertyGroup(Struct):
    group: str = msgspec.field(name="PropertyGroupId")
    properties: dict[str, str] = msgspec.field(name="PropertyMap")


def flink_uri(place: str | Path) -> str:
    """Write a folder as Flink reads it, which takes `file:` URIs literally: a space stays a space. URIs stay."""
    return place.rstrip("/") if isinstance(place, str) and "://" in place else f"file://{Path(place).absolute()}"


def settings_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file to read: the one CLICKSTREAM_PROPERTIES names, else where Managed Flink puts it."""
    return Path(environ.get(FILE_VARIABLE, MANAGED_FLINK_FILE))


def read_settings(file: Path) -> Settings:
    """Read the settings; `Refused` names the file, the key, and what to write there.

    Groups of other names are left alone: Managed Flink has some of its own.
    """
    try:
        groups = msgspec.json.decode(file.read_bytes(), type=list[_PropertyGroup])
    except OSError as error:
        raise Refused(
            f"cannot read the settings in {file} ({error.strerror}): set {FILE_VARIABLE} to an"
            f" application_properties.json, or put one there"
        ) from None
    except msgspec.MsgspecError as error:
        raise Refused(f"{file} is not a list of property groups ({error}); README shows one") from None
    given = {one.group: one.properties for one in groups}
    return Settings(**{field.name: _group(file, field.type, given) for field in msgspec.structs.fields(Settings)})


def _group(file: Path, cls: type[_Group], given: Mapping[str, Mapping[str, str]]) -> Any:
    name = cls.__name__.lower()
    try:
        return msgspec.convert(given.get(name, {}), cls, strict=False)
    except msgspec.ValidationError as error:
        keys = ", ".join(field.encode_name for field in msgspec.structs.fields(cls))
        example = ' such as {"root": "s3://my-lake"}' if name == "lake" else ""
        raise Refused(f"{file}, group {name}: {error}. Its keys are {keys}{example}") from None


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
