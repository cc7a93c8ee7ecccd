"""What Athena and Redshift answer, DuckDB answers too, where a translation word by word would not."""

from typing import Any

import duckdb
import pytest

from analytics.dialects import Copy, ExternalSchema, Plain, Unload, inserted, split, statements, tables_of
from clickstream.errors import Refused

VALUES = {"since": "2026-01-01", "until": "2026-01-31"}
COLUMNS = {"numbers": {"seven": "BIGINT", "half": "DOUBLE", "pair": "STRUCT(a BIGINT, b DOUBLE)"}}


def answer(sql: str, dialect: Any = "athena") -> Any:
    (statement,) = statements(sql, dialect, VALUES, COLUMNS)
    assert isinstance(statement, Plain)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("CREATE TABLE numbers AS SELECT 7::BIGINT seven, 0.5::DOUBLE half, {'a': 9, 'b': 1.5} pair")
        (row,) = connection.execute(statement.sql).fetchall()
    return row[0] if len(row) == 1 else row


@pytest.mark.parametrize(
    ("asked", "athena"),
    [
        ("SELECT 3 / 4", 0),
        ("SELECT -7 / 2", -3),
        ("SELECT 3 / 4.0e0", 0.75),
        ("SELECT seven / 2 FROM numbers", 3),
        ("SELECT seven / 2 / 2 FROM numbers", 1),
        ("SELECT half / 2 FROM numbers", 0.25),
        ("SELECT pair.a / 2 FROM numbers", 4),
        ("SELECT count(*) / 2 FROM numbers", 0),
        ("WITH n AS (SELECT seven AS s FROM numbers) SELECT n.s / 2 FROM n", 3),
        ("SELECT n.seven / 2 FROM main.numbers AS n", 3),
        ("SELECT date_diff('hour', TIMESTAMP '2026-01-01 00:59:00', TIMESTAMP '2026-01-01 01:01:00')", 0),
        ("SELECT date_diff('week', DATE '2026-01-04', DATE '2026-01-05')", 0),
        ("SELECT date_diff('day', DATE '2026-01-05', DATE '2026-01-04')", -1),
        ("SELECT day_of_week(DATE '2026-01-04')", 7),  # a Sunday
        ("SELECT extract(DOW FROM DATE '2026-01-04')", 7),
        ("SELECT count_if(NULL)", 0),
        ("SELECT count_if(a > 1) FROM (VALUES (1), (NULL)) AS t (a)", 0),
        ("SELECT concat('a', NULL)", None),
        ("SELECT max(b) FROM UNNEST(ARRAY[ROW(1, 'x'), ROW(2, 'y')]) AS t (a, b)", "y"),
        ("SELECT sum(a) FROM (SELECT ARRAY[1, 2] AS l) CROSS JOIN UNNEST(l) AS t (a)", 3),
        ("SELECT ? || '/' || ?", "2026-01-01/2026-01-31"),
        ("SELECT max(a) FROM (VALUES (1)) AS t (a) WHERE '2026-01-15' BETWEEN ? AND ?", 1),
    ],
)
def test_athena(asked: str, athena: Any) -> None:
    assert answer(asked) == athena


@pytest.mark.parametrize(
    ("asked", "redshift"),
    [
        ("SELECT 3 / 4", 0),
        ("SELECT seven / 2 FROM numbers", 3),
        ("SELECT datediff(hour, '2026-01-01 00:59', '2026-01-01 01:01')", 1),  # boundaries, here
        ("SELECT date_part(dow, DATE '2026-01-04')", 0),
        ("SELECT nvl(NULL, 'x')", "x"),
        ("SELECT :since || '/' || :until", "2026-01-01/2026-01-31"),
    ],
)
def test_redshift(asked: str, redshift: Any) -> None:
    assert answer(asked, "redshift") == redshift


def test_a_value_is_a_value_whatever_is_in_it() -> None:
    (statement,) = statements("SELECT :since", "redshift", {"since": "' OR 1=1 --"})

    assert isinstance(statement, Plain)
    assert duckdb.execute(statement.sql).fetchall() == [("' OR 1=1 --",)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lake", "s3://bucket/' TO 's3://other"),
        ("lake", "s3://Bucket"),
        ("lake", "s3://bucket/${lake}"),
        ("since", "2026-01-01' OR '1'='1"),
        ("glue_database", "clickstream'; DROP"),
        ("password", "x"),
    ],
)
def test_what_could_be_more_than_a_value_is_not_put_into_a_text(name: str, value: str) -> None:
    with pytest.raises(Refused):
        inserted(f"… '${{{name}}}' …", {name: value})


def test_a_text_that_wants_what_it_was_not_given_says_which() -> None:
    with pytest.raises(Refused, match="--lake"):
        inserted("UNLOAD … '${lake}/x'", {})


def test_statements_end_at_semicolons_that_are_no_text() -> None:
    text = "-- one; two\nSELECT ';' ; UNLOAD ('SELECT '';''') TO 's3://b/p' IAM_ROLE default /* ; */ ;\n;\n"

    assert split(text, "redshift") == ["SELECT ';'", "UNLOAD ('SELECT '';''') TO 's3://b/p' IAM_ROLE default"]


def test_what_only_redshift_has_is_read() -> None:
    text = """
      create external schema if not exists spectrum from data catalog database 'x' iam_role default;
      UNLOAD ('SELECT ''a''') TO 's3://b/p' IAM_ROLE 'arn:aws:iam::1:role/r' CSV HEADER PARALLEL OFF;
      UNLOAD ('SELECT 1') TO 's3://b/p' IAM_ROLE default FORMAT AS PARQUET MAXFILESIZE AS 5 MB;
      COPY t (a, b) FROM 's3://b/p' IAM_ROLE default DELIMITER '|' FORMAT CSV IGNOREHEADER AS 1;
    """

    assert list(statements(text, "redshift", {})) == [
        ExternalSchema("spectrum"),
        Unload("SELECT 'a'", "s3://b/p", "csv", ",", header=True),
        Unload("SELECT 1", "s3://b/p", "parquet"),
        Copy("t", ("a", "b"), "s3://b/p", "|", 1),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("UNLOAD ('SELECT 1') TO 's3://b/p' IAM_ROLE default GZIP", "GZIP"),
        ("UNLOAD ('DROP TABLE t') TO 's3://b/p' IAM_ROLE default", "not a query"),
        ("UNLOAD ('SELECT 1; SELECT 2') TO 's3://b/p'", "not a query"),
        ("COPY t FROM 's3://b/p' IAM_ROLE default JSON 'auto'", "JSON"),
        ("COPY t", "FROM"),
        ("UNLOAD", "UNLOAD"),
        ("VACUUM t", "VACUUM"),
    ],
)
def test_what_cannot_be_done_here_is_refused_by_its_name(text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        list(statements(text, "redshift", VALUES))


def test_tables_are_found_wherever_they_are_named() -> None:
    text = """
      WITH a AS (SELECT * FROM redis.r.users) SELECT * FROM a, lake.enriched AS a2 WHERE EXISTS (SELECT 1 FROM raw);
      UNLOAD ('SELECT * FROM rejected') TO 's3://b/p' IAM_ROLE default
    """

    assert tables_of(text, "redshift") == {
        ("redis", "r", "users"),
        ("", "lake", "enriched"),
        ("", "", "raw"),
        ("", "", "rejected"),
    }


def test_a_comment_is_no_statement() -> None:
    assert list(statements("-- only a comment", "athena", {})) == []
