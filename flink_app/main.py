"""The job: what Managed Flink and a laptop both run.

records (Kinesis) ─▶ decode, place and name, last access ─┬─▶ enriched
                     (one Python function)                ├─▶ rejected
                                                          ├─▶ raw
                                                          └─▶ offers (Kinesis)

With de-duplication on, records come by way of their click_id, found by Python, and the state of which one was the first
of it; what is not the first goes to one more table, suppressed.
"""

import logging
import sys
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from pyflink.common import JobClient
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment, Table
from pyflink.table.types import _to_java_data_type, from_arrow_type

from clickstream.errors import ClickstreamError
from clickstream.schema import OUTCOME
from clickstream.settings import Settings, read_settings, settings_file
from flink_app import function, tables, wiring


def submit(settings: Settings, environment: StreamExecutionEnvironment) -> JobClient:
    """Plan the job and start it, once all doors have shown that they open."""
    wiring.check(settings)
    plan(settings, environment)
    return environment.execute_async("clickstream")


def plan(settings: Settings, environment: StreamExecutionEnvironment) -> None:
    """Draw the arrows from the records to the sinks."""
    table_environment = StreamTableEnvironment.create(environment)
    config = table_environment.get_config()
    config.set("table.local-time-zone", "UTC")
    config.set("pipeline.object-reuse", "true")
    config.set("pipeline.operator-chaining.enabled", "true")  # `Pack`, Python and `Unpack` have to be one task
    table_environment.execute_sql(tables.source(settings))
    if settings.dedup.enabled:
        config.set("table.exec.state.ttl", f"{settings.dedup.seconds} s")
        config.set("python.fn-execution.arrow.batch.size", str(settings.job.batch_size))
        _bundle(table_environment, settings.job.batch_size, settings.to_fill(settings.job.batch_millis))
        table_environment.create_temporary_function("click_id_of", function.click_id())
        table_environment.create_temporary_view("clicks", table_environment.sql_query(tables.clicks()))
    _outcomes(settings, table_environment)
    statements = table_environment.create_statement_set()
    for name in tables.written(settings):
        table_environment.execute_sql(tables.lake(name, settings))
        statements.add_insert_sql(tables.insert_lake(name))
    if settings.offers.enabled:
        table_environment.execute_sql(tables.offers(settings))
        statements.add_insert_sql(tables.insert_offers())
    statements.attach_as_datastream()
    _name_operators(settings, environment)


def _bundle(table_environment: StreamTableEnvironment, size: int, millis: int) -> None:
    """Say how many rows Python functions get at a time that are planned from now on, and how long they wait."""
    config = table_environment.get_config()
    config.set("python.fn-execution.bundle.size", str(size))
    config.set("python.fn-execution.bundle.time", str(millis))


def _outcomes(settings: Settings, table_environment: StreamTableEnvironment) -> None:
    """Create the view of what became of the records, computed by one Python stage whatever reads it."""
    table_environment.create_temporary_function("outcome", function.outcome(settings))
    records = table_environment.sql_query(tables.arrived(settings))
    ours = get_gateway().jvm.clickstream
    row = records._j_table.getResolvedSchema().toPhysicalRowDataType().getLogicalType()
    pack = ours.Pack(row, settings.job.batch_size, settings.to_fill(settings.job.batch_millis))
    _transform(records, table_environment, "packs", pack, [pa.field("pack", pa.binary())])
    _bundle(table_environment, settings.job.bundle_batches, settings.job.bundle_millis)
    outcomes = table_environment.sql_query("SELECT outcome(pack) FROM packs")
    _transform(outcomes, table_environment, "outcomes", ours.Unpack(), OUTCOME)


def _transform(
    table: Table, table_environment: StreamTableEnvironment, name: str, operator: Any, columns: Iterable[pa.Field]
) -> None:
    """Create a view of what an operator of ours makes of a table.

    The planner does not look behind it: it would push each sink's columns down into a Python stage of its own. A stream
    of the planner's own RowData and back costs nothing, since neither way converts a row.
    """
    jvm = get_gateway().jvm
    row_data = jvm.java.lang.Class.forName("org.apache.flink.table.data.RowData")
    before = table._j_table.getResolvedSchema().toPhysicalRowDataType().bridgedTo(row_data)
    after = _to_java_data_type(from_arrow_type(pa.struct(columns))).bridgedTo(row_data)
    its_type = jvm.org.apache.flink.table.runtime.typeutils.ExternalTypeInfo.of(after)
    stream = table_environment._j_tenv.toDataStream(table._j_table, before).transform(name, its_type, operator)
    table_environment._j_tenv.createTemporaryView(name, stream)


def _name_operators(settings: Settings, environment: StreamExecutionEnvironment) -> None:
    """Give the operators the names of the diagram, and those with state an id that state is found again by.

    Flink calls every lake table's writer and committer the same, and derives ids from the shape of the plan: a column
    more would make strangers of them (docs/guarantees.md, Recovery).
    """
    lake_tables = iter(tables.written(settings))
    for sink in environment._j_stream_execution_environment.getTransformations():
        for operator in sink.getTransitivePredecessors():
            if operator.getName() == "StreamingFileWriter":
                name = next(lake_tables)
                operator.setName(name)
                operator.setUid(name)
                sink.setName(f"{name} committed")
                sink.setUid(f"{name} committed")
            elif operator.getName().startswith("PythonCalc"):
                is_last = "outcome(" in operator.getDescription()
                operator.setName("decode, place and name, last access" if is_last else "click_id")
                operator.setUid("outcomes" if is_last else "click ids")
            elif operator.getName().startswith("OverAggregate"):
                operator.setName("first of its click_id")
                operator.setUid("clicks")
            elif operator.getName().startswith("records["):
                operator.setUid("records")
        if sink.getName().startswith("offers["):
            sink.setUid("offers")


def main() -> None:
    """Run the job as Managed Flink does: with the settings that it has put down."""
    logging.basicConfig(level=logging.INFO)
    try:
        submit(read_settings(settings_file()), StreamExecutionEnvironment.get_execution_environment())
    except ClickstreamError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
