"""The tables as the template describes them to Glue read the files that the job and Firehose write: Spark is the judge.

Spark computes no partitions as Athena does, so they are entered here, at the places that the template computes.
"""

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import Row, SparkSession

from clickstream.schema import ENRICHED, FLATTENED, REJECTED
from connectors.lake import Lake, partition_values
from tests.templates import FOLDER, Rendered, read

HOUR = "year=2021/month=07/day=02/hour=09"
AT = datetime(2021, 7, 2, 9, 1, 58, 732726, tzinfo=UTC)
ORIGIN = {"arrival_timestamp": AT, "shard_id": "shardId-000000000000", "sequence_number": "49650"}
INNER = {"time_on_data": 79.0, "percent_viewed": 39.7, "product_id": 2**63 - 1, "price": 417.97}
OUTER = {
    "timestamp": AT,
    "user_id": "35",
    "pixel_id": "p",
    "click_id": "c",
    "insertion_timestamp": AT,
    "event_name": "Search",
    "user_ip": "111.33.64.227",
    "name": None,
    "country": "CN",
    "region": "Shanxi",
    "city": "Taiyuan",
    "geo_status": "found",
    "name_status": "unknown",
    **ORIGIN,
}
BYTES = b'{"half\xff'


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    folder = tmp_path_factory.mktemp("spark")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        session = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.memory", "1g")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
            .config("spark.hadoop.javax.jdo.option.ConnectionURL", "jdbc:derby:memory:glue;create=true")
            .config("spark.sql.shuffle.partitions", "1")
            .enableHiveSupport()
            .getOrCreate()
        )
        system: Any = session.sparkContext._jvm
        system.java.lang.System.setProperty("derby.stream.error.file", str(folder / "derby.log"))
        yield session
        session.stop()


def create(spark: SparkSession, name: str, root: Path) -> None:
    """Create a table of the template below a folder that stands for its bucket, with its one hour as a partition."""
    [table] = [
        said["Properties"]["TableInput"]
        for said in Rendered(read(FOLDER / "catalog.yaml")).resources().values()
        if said["Type"] == "AWS::Glue::Table" and said["Properties"]["TableInput"]["Name"] == name
    ]
    storage = table["StorageDescriptor"]
    serde = storage["SerdeInfo"]
    properties = ", ".join(f"'{key}' = '{value}'" for key, value in serde.get("Parameters", {}).items())
    values = partition_values(HOUR)
    place = table["Parameters"]["storage.location.template"]
    for key, value in values.items():
        place = place.replace(f"${{{key}}}", value)

    def local(uri: str) -> str:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return f"file://{root}/{bucket}/{key}"

    spark.sql(f"DROP TABLE IF EXISTS {name}")
    spark.sql(
        f"CREATE EXTERNAL TABLE {name} ({_columns(storage['Columns'])})"
        f" PARTITIONED BY ({_columns(table['PartitionKeys'])})"
        f" ROW FORMAT SERDE '{serde['SerializationLibrary']}'"
        f"{f' WITH SERDEPROPERTIES ({properties})' if properties else ''}"
        f" STORED AS INPUTFORMAT '{storage['InputFormat']}' OUTPUTFORMAT '{storage['OutputFormat']}'"
        f" LOCATION '{local(storage['Location'])}'"
    )
    partition = ", ".join(f"{key} = '{value}'" for key, value in values.items())
    spark.sql(f"ALTER TABLE {name} ADD PARTITION ({partition}) LOCATION '{local(place)}'")


def _columns(said: list[dict[str, Any]]) -> str:
    return ", ".join(f"`{column['Name']}` {column['Type']}" for column in said)


def rows(spark: SparkSession, name: str) -> list[dict[str, Any]]:
    """Return all rows; moments come back as Spark tells them, in UTC."""
    found = spark.table(name)
    for column, kind in found.dtypes:
        if kind == "timestamp":
            found = found.withColumn(column, found[column].cast("string"))
    return [
        {key: value.asDict() if isinstance(value, Row) else value for key, value in row.asDict().items()}
        for row in found.collect()
    ]


@pytest.mark.parametrize(
    ("name", "schema", "row"),
    [
        ("enriched", ENRICHED, {**OUTER, "additional_data": INNER}),
        ("flattened", FLATTENED, {**OUTER, **INNER}),
        (
            "rejected",
            REJECTED,
            {"payload": BYTES, "stage": "decode", "reason": "malformed_json", "field": None, **ORIGIN},
        ),
    ],
)
def test_what_the_lake_holds_is_read_whole(
    spark: SparkSession, tmp_path: Path, name: str, schema: pa.Schema, row: dict[str, Any]
) -> None:
    Lake(str(tmp_path / "lakebucket-0123")).write(name, HOUR, "part-0.parquet", pa.Table.from_pylist([row], schema))
    create(spark, name, tmp_path)

    (found,) = rows(spark, name)

    told = {key: "2021-07-02 09:01:58.732726" if value is AT else value for key, value in row.items()}
    assert found == told | partition_values(HOUR)


def test_what_firehose_wrote_is_read_line_by_line_whatever_is_in_it(spark: SparkSession, tmp_path: Path) -> None:
    lines = ['{"user_id": "35", "price": 1}', "no JSON, but \u00e9 and \x01 and , and \\", '  {"a": ', "x" * 100_000]
    folder = tmp_path / "rawbucket-0123" / HOUR
    folder.mkdir(parents=True)
    (folder / "clickstream-prod-raw-1-2021-07-02-09-01-58.json.gz").write_bytes(
        gzip.compress("".join(f"{line}\n" for line in lines).encode())
    )
    create(spark, "raw", tmp_path)

    found = rows(spark, "raw")

    assert [row["payload"] for row in found] == lines
    assert {row["hour"] for row in found} == {"09"}
