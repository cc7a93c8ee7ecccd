"""What is asked of Redshift's Data API, and what becomes of its answers; botocore checks each request."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from analytics.dialects import split
from cli.query import ALL_DAYS, Query, find_query
from cli.redshift import run_redshift
from clickstream.errors import Refused, Unavailable
from connectors.redshift_data import RedshiftData

WHERE = {"WorkgroupName": "shop", "Database": "clickstream"}
TEXTS = {"lake": "s3://my-lake", "glue_database": "clickstream_dev"}


@pytest.fixture
def aws() -> Iterator[Stubber]:
    client = boto3.client(
        "redshift-data", region_name="eu-central-1", aws_access_key_id="none", aws_secret_access_key="none"
    )
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def door(aws: Stubber) -> RedshiftData:
    return RedshiftData(aws.client, "shop", "clickstream", sleep=lambda _: None)


def started(aws: Stubber, operation: str, **request: Any) -> None:
    aws.add_response(operation, {"Id": "q"}, {**WHERE, **request})


def described(aws: Stubber, status: str, **more: Any) -> None:
    aws.add_response("describe_statement", {"Id": "q", "Status": status, **more}, {"Id": "q"})


def test_a_query_is_bound_waited_for_and_read_page_by_page(aws: Stubber, door: RedshiftData) -> None:
    sql = "SELECT event_name, count(*) FROM t WHERE d >= :since GROUP BY 1"
    started(aws, "execute_statement", Sql=sql, Parameters=[{"name": "since", "value": "2026-01-01"}])
    for status in ("SUBMITTED", "PICKED", "STARTED"):
        described(aws, status)
    described(aws, "FINISHED", HasResultSet=True, Duration=1_500_000_000)
    columns = [{"name": "event_name", "label": "event_name"}, {"name": "count"}]
    search = [{"stringValue": "Search"}, {"longValue": 9}]
    nobody = [{"isNull": True}, {"longValue": 0}]
    page = {"ColumnMetadata": columns, "Records": [search], "NextToken": "more"}
    aws.add_response("get_statement_result", page, {"Id": "q"})
    aws.add_response("get_statement_result", {"Records": [nobody]}, {"Id": "q", "NextToken": "more"})
    seen: list[str] = []

    result = door.run([sql], {"since": "2026-01-01"}, seen.append)

    assert result.columns == ["event_name", "count"]
    assert list(result.rows) == [["Search", 9], [None, 0]]
    assert (result.seconds, seen) == (1.5, ["SUBMITTED", "PICKED", "STARTED"])


def test_several_statements_are_one_transaction_and_the_last_answers(aws: Stubber, door: RedshiftData) -> None:
    started(aws, "batch_execute_statement", Sqls=["DELETE FROM t", "SELECT 1 AS one"])
    parts = [{"Id": "q:1", "Status": "FINISHED"}, {"Id": "q:2", "Status": "FINISHED", "HasResultSet": True}]
    described(aws, "FINISHED", SubStatements=parts)
    answer = {"ColumnMetadata": [{"name": "one"}], "Records": [[{"longValue": 1}]]}
    aws.add_response("get_statement_result", answer, {"Id": "q:2"})

    result = door.run(["DELETE FROM t", "SELECT 1 AS one"], {})

    assert (result.columns, list(result.rows)) == (["one"], [[1]])


def test_what_redshift_says_of_a_failure_is_passed_on(aws: Stubber, door: RedshiftData) -> None:
    started(aws, "batch_execute_statement", Sqls=["A", "B"])
    parts = [{"Id": "q:1", "Status": "ABORTED"}, {"Id": "q:2", "Status": "FAILED", "Error": "no such table"}]
    described(aws, "FAILED", Error="one failed", SubStatements=parts)

    with pytest.raises(Refused, match="no such table"):
        door.run(["A", "B"], {})


def test_ctrl_c_cancels_at_redshift_too(aws: Stubber) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    door = RedshiftData(aws.client, "shop", "clickstream", sleep=interrupted)
    started(aws, "execute_statement", Sql="SELECT 1")
    described(aws, "STARTED")
    aws.add_response("cancel_statement", {"Status": True}, {"Id": "q"})

    with pytest.raises(KeyboardInterrupt):
        door.run(["SELECT 1"], {})


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("ThrottlingException", Unavailable, "try again"),
        ("ActiveStatementsExceededException", Unavailable, "try again"),
        ("ResourceNotFoundException", Refused, "--workgroup"),
        ("AccessDeniedException", Refused, "redshift-data"),
        ("SomethingNewException", Refused, "SomethingNew"),
    ],
)
def test_errors_of_aws_are_one_of_ours(
    aws: Stubber, door: RedshiftData, code: str, kind: type[Exception], said: str
) -> None:
    aws.add_client_error("execute_statement", code, "its words")

    with pytest.raises(kind, match=said):
        door.run(["SELECT 1"], {})


@pytest.mark.parametrize("name", ["external_schema", "unload_by_country_and_event_name"])
def test_texts_that_take_no_parameters_get_checked_values(aws: Stubber, door: RedshiftData, name: str) -> None:
    query = find_query(name)
    (statement,) = split(query.text, "redshift")
    for place, value in {**TEXTS, **ALL_DAYS}.items():
        statement = statement.replace(f"${{{place}}}", value)
    assert "${" not in statement
    started(aws, "execute_statement", Sql=statement)
    described(aws, "FINISHED")

    run_redshift(query, door, TEXTS, ALL_DAYS)


def test_a_count_is_printed(aws: Stubber, door: RedshiftData, capsys: pytest.CaptureFixture[str]) -> None:
    query = find_query("count_by_event_name")
    (statement,) = split(query.text, "redshift")
    bound = [{"name": "since", "value": "2026-01-01"}, {"name": "until", "value": "2026-01-31"}]
    started(aws, "execute_statement", Sql=statement, Parameters=bound)
    described(aws, "FINISHED", HasResultSet=True)
    answer = {
        "ColumnMetadata": [{"name": "event_name"}, {"name": "events"}],
        "Records": [[{"stringValue": "Search"}, {"longValue": 1234}]],
    }
    aws.add_response("get_statement_result", answer, {"Id": "q"})

    run_redshift(query, door, TEXTS, {"since": "2026-01-01", "until": "2026-01-31"})

    assert "Search       1,234" in " ".join(capsys.readouterr().out.split("\n"))


def test_loading_is_one_transaction_of_four_statements(aws: Stubber, door: RedshiftData) -> None:
    query = find_query("load_by_country_and_event_name")
    sqls = [one.replace("${lake}", "s3://my-lake") for one in split(query.text, "redshift")]
    assert [sql.split()[0] for sql in sqls] == ["CREATE", "DELETE", "COPY", "SELECT"]
    started(aws, "batch_execute_statement", Sqls=sqls)
    described(aws, "FINISHED", SubStatements=[{"Id": "q:4"}])

    run_redshift(query, door, TEXTS, ALL_DAYS)


@pytest.mark.parametrize(
    ("query", "texts", "said"),
    [
        (find_query("funnel"), TEXTS, "written for Athena"),
        (find_query("unload_by_country_and_event_name"), {}, "--lake"),
        (find_query("unload_by_country_and_event_name"), {"lake": "s3://x' TO 's3://y"}, "cannot be put"),
        (Query("q", "SELECT :customer", "redshift"), TEXTS, ":customer"),
        (Query("q", "-- nothing", "redshift"), TEXTS, "no statement"),
    ],
)
def test_nothing_is_sent_that_is_not_whole(door: RedshiftData, query: Query, texts: Any, said: str) -> None:
    with pytest.raises(Refused, match=said):
        run_redshift(query, door, texts, ALL_DAYS)
