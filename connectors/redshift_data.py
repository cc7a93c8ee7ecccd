"""The door to Redshift by its Data API: SQL goes in over HTTPS, and nobody needs a connection into the VPC."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from clickstream.errors import ClickstreamError, Refused, Unavailable
from connectors.pauses import backoff

_PASSING: Final = {
    "ActiveSessionsExceededException",
    "ActiveStatementsExceededException",
    "InternalServerException",
    "ThrottlingException",
}
_NEXT: Final = {
    "AccessDeniedException": "allow redshift-data:* on the workgroup and redshift-serverless:GetCredentials",
    "ResourceNotFoundException": "check --workgroup and --region, or make one with clickstream deploy",
    "ValidationException": "check --workgroup and --database",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What the last statement answered: no columns, if it was none that answers rows."""

    columns: list[str]
    rows: Iterator[list[Any]]
    seconds: float


class RedshiftData:
    """Runs SQL in one workgroup of Redshift Serverless.

    Several statements are one transaction: all of them count, or none. Values are bound by Redshift, never written
    into the text. A request that is sent twice, because its answer was lost, runs once: botocore gives it a token.
    `Unavailable` when AWS does not answer or is busy, `Refused` with Redshift's own words when it will not do it.
    """

    def __init__(
        self, client: Any, workgroup: str, database: str, *, sleep: Callable[[float], None], rng: Random | None = None
    ) -> None:
        self._client, self._workgroup, self._database = client, workgroup, database
        self._sleep, self._rng = sleep, rng or Random()  # noqa: S311  # pauses are no secret

    def run(
        self, statements: Sequence[str], values: Mapping[str, str], on_status: Callable[[str], None] = lambda _: None
    ) -> Result:
        """Run statements to their end and return what the last answered; Ctrl-C cancels them at Redshift, too."""
        where: dict[str, Any] = {"WorkgroupName": self._workgroup, "Database": self._database}
        if values:
            where["Parameters"] = [{"name": name, "value": value} for name, value in sorted(values.items())]
        if len(statements) == 1:
            started = self._ask("execute_statement", Sql=statements[0], **where)
        else:
            started = self._ask("batch_execute_statement", Sqls=list(statements), **where)
        try:
            ended = self._end(started["Id"], on_status)
        except KeyboardInterrupt:
            self._ask("cancel_statement", Id=started["Id"])
            raise
        last = (ended.get("SubStatements") or [ended])[-1]
        if not last.get("HasResultSet"):
            return Result([], iter(()), ended.get("Duration", 0) / 1e9)
        pages = self._pages(last["Id"])
        first = next(pages)
        columns = [column.get("label") or column["name"] for column in first["ColumnMetadata"]]
        return Result(columns, _rows(first, pages), ended.get("Duration", 0) / 1e9)

    def _end(self, statement: str, on_status: Callable[[str], None]) -> Any:
        asked = 0
        while True:
            described = self._ask("describe_statement", Id=statement)
            status = described["Status"]
            if status == "FINISHED":
                return described
            if status in ("FAILED", "ABORTED"):
                failed = [one["Error"] for one in described.get("SubStatements", ()) if one.get("Error")]
                words = (failed or [described.get("Error", "it was cancelled")])[0]
                raise Refused(f"Redshift did not do it: {words}")
            on_status(status)
            asked += 1
            self._sleep(backoff(asked, self._rng))

    def _pages(self, statement: str) -> Iterator[Any]:
        request = {"Id": statement}
        while True:
            page = self._ask("get_statement_result", **request)
            yield page
            if not page.get("NextToken"):
                return
            request["NextToken"] = page["NextToken"]

    def _ask(self, operation: str, **request: Any) -> Any:
        try:
            return getattr(self._client, operation)(**request)
        except ClientError as error:
            raise self._explained(error) from None
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise Refused(f"AWS cannot be asked: {error}. Next: aws configure, or aws sso login") from None
        except BotoCoreError as error:
            raise Unavailable(f"the Data API of Redshift does not answer: {error}. Next: try again") from None

    def _explained(self, error: ClientError) -> ClickstreamError:
        code, words = error.response["Error"]["Code"], error.response["Error"]["Message"]
        trouble = f"Redshift's workgroup {self._workgroup} said {code}: {words}. Next: "
        if code in _PASSING:
            return Unavailable(trouble + "try again in a minute")
        return Refused(trouble + _NEXT.get(code, "correct the query"))


def _rows(first: Any, pages: Iterator[Any]) -> Iterator[list[Any]]:
    for page in chain([first], pages):
        for record in page["Records"]:
            yield [_value(field) for field in record]


def _value(field: Mapping[str, Any]) -> Any:
    """Take the one value of a field, which says its type in its name."""
    ((kind, value),) = field.items()
    return None if kind == "isNull" else value
