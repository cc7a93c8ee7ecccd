"""What `Pack` makes batches of: records of few hours, in order, each record once."""

import json
import subprocess
import sys
from itertools import chain, groupby
from pathlib import Path

import pytest

from cli.servers import PROJECT
from tests.bench.records import Records

JOB = """
import json, sys
from pathlib import Path
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, StreamTableEnvironment
from pyflink.table.udf import udf
import pyarrow as pa
from clickstream.packs import unpack
from clickstream.schema import RAW
from clickstream.settings import Lake, Settings, Source
from flink_app import tables
from flink_app.local import _environment, configuration
from flink_app.main import _bundle, _transform
from flink_app.region import answered

folder, raw, most = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
settings = Settings(lake=Lake(root="/nowhere"), source=Source(replay=raw.as_uri()))
environment = _environment(configuration(settings, folder, parallelism=1, checkpoint_seconds=3600), folder)
table_environment = StreamTableEnvironment.create(environment)
table_environment.get_config().set("table.local-time-zone", "UTC")

@udf(result_type=DataTypes.STRING())
def read(address):
    found = []
    def work(pack):
        _, arrival, _, number = unpack(pack, RAW.types)
        hours = [moment // 3_600_000_000 for moment in arrival.cast(pa.int64()).to_pylist()]
        found.extend(zip(hours, number.to_pylist()))
        return []
    answered(address, work)
    return json.dumps(found)

table_environment.execute_sql(tables.source(settings))
records = table_environment.sql_query(tables.arrived(settings))
row = records._j_table.getResolvedSchema().toPhysicalRowDataType().getLogicalType()
pack = get_gateway().jvm.clickstream.Pack(row, most, 600_000)
_transform(records, table_environment, "packs", pack, [pa.field("pack", pa.binary())])
table_environment.create_temporary_function("read", read)
_bundle(table_environment, 1, 1000)
with table_environment.execute_sql("SELECT read(pack) FROM packs").collect() as rows:
    for (batch,) in rows:
        print("BATCH" + batch)
"""


@pytest.mark.parametrize(
    ("most", "at_once", "hours_at_most"),
    [(20, 24, 80), (20, 200, 350), (100, 24, 24)],
    ids=["hours are batches", "too much waits", "all at the end"],
)
def test_a_batch_has_few_hours_in_order_and_every_record_is_in_one(
    most: int, at_once: int, hours_at_most: int, tmp_path: Path
) -> None:
    records = Records(600, users=100, hours=1, at_once=at_once).make()
    command = [sys.executable, "-c", JOB, str(tmp_path), str(records.raw), str(most)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-20_000:]

    batches = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("BATCH")]
    numbers = [number for _, number in chain.from_iterable(batches)]
    assert len(numbers) == len(set(numbers)) == 600
    assert all(len(batch) <= most for batch in batches)
    hours = [[hour for hour, _ in groupby(batch, key=lambda one: one[0])] for batch in batches]
    assert all(of_batch == sorted(set(of_batch)) for of_batch in hours)
    assert sum(map(len, hours)) <= hours_at_most  # 600, 600 and 144 if records did not wait for others of their hour
