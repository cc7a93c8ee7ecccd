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

from pyflink.common import JobClient
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment, Table

from clickstream.errors import ClickstreamError
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
    config.set("python.fn-execution.arrow.batch.size", str(settings.job.batch_size))
    config.set("python.fn-execution.bundle.size", str(settings.job.bundle_size))
    config.set("python.fn-execution.bundle.time", str(settings.to_fill(settings.job.bundle_millis)))

    table_environment.execute_sql(tables.source(settings))
    if settings.dedup.enabled:
        config.set("table.exec.state.ttl", f"{settings.dedup.seconds} s")
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


def _outcomes(settings: Settings, table_environment: StreamTableEnvironment) -> None:
    """Create the view of what became of each record, computed by one Python stage whatever reads it."""
    columns = function.columns(settings)
    for name, column in columns.items():
        table_environment.create_temporary_function(f"outcome_{name}", column)
    _fence("outcomes", table_environment.sql_query(tables.outcomes(settings, columns)), table_environment)


def _fence(name: str, table: Table, table_environment: StreamTableEnvironment) -> None:
    """Create a view that the planner does not look behind.

    It would otherwise push each sink's columns down into a Python stage of its own. A stream of the planner's own
    RowData and back costs nothing: neither way converts a row.
    """
    row_data = get_gateway().jvm.java.lang.Class.forName("org.apache.flink.table.data.RowData")
    rows = table._j_table.getResolvedSchema().toPhysicalRowDataType().bridgedTo(row_data)
    stream = table_environment._j_tenv.toDataStream(table._j_table, rows)
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
                is_last = "outcome_" in operator.getDescription()
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
