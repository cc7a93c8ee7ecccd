"""SQL for Athena or Redshift as what DuckDB is to do, with the same answer.

sqlglot translates; what it would change without a word is seen to here: Athena's `date_diff` counts whole units, a
division of whole numbers is one, `count_if` of nothing is 0, and UNNEST of an array of rows makes a column of each
field. UNLOAD, COPY and CREATE EXTERNAL SCHEMA, which sqlglot leaves as they are, become values of their own.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.dialects.redshift import Redshift
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.tokenizer_core import Token, TokenType

from clickstream.errors import Refused

DialectName = Literal["athena", "redshift", "duckdb"]

Columns = Mapping[str, Mapping[str, str]]
"""The columns of each table with DuckDB's types, for types to be followed through a query."""

SINCE_UNTIL: Final = ("since", "until")
"""What Athena's two question marks are, in this order."""

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # what it warns of is refused here, in a sentence

_PLACE: Final = re.compile(r"\$\{(\w+)\}")
_INSERTABLE: Final = {
    "lake": re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.=-]+)*|(/[^'\\$]*)"),
    "glue_database": re.compile(r"[a-z0-9_]{1,255}"),
    "since": re.compile(r"\d{4}-\d\d-\d\d"),
    "until": re.compile(r"\d{4}-\d\d-\d\d"),
}
"""What may stand for `${name}` in the texts where no database takes a parameter."""


@dataclass(frozen=True, slots=True)
class Unload:
    """Write what a query answers to files whose names begin with `to`."""

    query: str
    to: str
    format: Literal["csv", "parquet"] = "csv"
    delimiter: str = "|"
    header: bool = False
    extension: str = ""


@dataclass(frozen=True, slots=True)
class Copy:
    """Add the rows of all CSV files whose names begin with `source` to a table."""

    table: str
    columns: tuple[str, ...]
    source: str
    delimiter: str = "|"
    skip: int = 0


@dataclass(frozen=True, slots=True)
class ExternalSchema:
    """Show the lake's tables under this schema, too."""

    name: str


@dataclass(frozen=True, slots=True)
class Plain:
    """What DuckDB runs as it is; `answers` if that gives rows, and `tables` are those it names."""

    sql: str
    answers: bool
    tables: frozenset[tuple[str, str, str]] = field(default=frozenset())  # catalog, schema, name; empty if not given


class _RedshiftWords(Redshift):
    """Redshift's words, also those after UNLOAD, which sqlglot's own dialect takes for one."""

    class Tokenizer(Redshift.Tokenizer):
        KEYWORDS: ClassVar = {
            word: kind for word, kind in Redshift.Tokenizer.KEYWORDS.items() if kind is not TokenType.COMMAND
        }
        COMMANDS: ClassVar[set[TokenType]] = set()


Statement = Plain | Unload | Copy | ExternalSchema


def inserted(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of each `${name}`; one that could be more than a value is `Refused`."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in _INSERTABLE:
            raise Refused(f"the query asks for ${{{name}}}; what it can have is {', '.join(_INSERTABLE)}")
        if name not in values:
            raise Refused(f"the query needs a value for ${{{name}}}. Next: give it with --{name.replace('_', '-')}")
        if not _INSERTABLE[name].fullmatch(values[name]):
            raise Refused(f"{values[name]!r} cannot be put into the query as ${{{name}}}")
        return values[name]

    return _PLACE.sub(value, text)


def split(text: str, dialect: DialectName) -> list[str]:
    """Cut a text into its statements, without the comments before them and the semicolons."""
    tokens, statements, begin = _tokens(text, dialect), [], 0
    while begin < len(tokens):
        end = next((n for n in range(begin, len(tokens)) if tokens[n].token_type is TokenType.SEMICOLON), len(tokens))
        if end > begin:
            statements.append(text[tokens[begin].start : tokens[end - 1].end + 1])
        begin = end + 1
    return statements


def parameters_of(statements: Iterable[str]) -> set[str]:
    """Name what stands as `:name` in statements for Redshift."""
    trees = [tree for text in statements if _own(text, "redshift") is None for tree in _parsed(text, "redshift")]
    return {str(one.this) for tree in trees for one in tree.find_all(exp.Placeholder) if one.this}


def tables_of(text: str, dialect: DialectName) -> frozenset[tuple[str, str, str]]:
    """Name the tables a text reads or writes, those in the query of an UNLOAD too, as catalog, schema and name."""
    found: set[tuple[str, str, str]] = set()
    for statement in split(text, dialect):
        match _own(statement, dialect):
            case Unload(query=query):
                found |= tables_of(query, dialect)
            case None:
                for tree in _parsed(statement, dialect):
                    found |= _tables(tree)
    return frozenset(found)


def statements(
    text: str, dialect: DialectName, values: Mapping[str, str], columns: Columns | None = None
) -> Iterator[Statement]:
    """Translate a text. `values` are bound to `:name`, `$name` and, in this order, to the `?` for since and until."""
    for statement in split(inserted(text, values), dialect):
        own = _own(statement, dialect)
        if isinstance(own, Unload):
            inner = list(statements(own.query, dialect, values, columns))
            plain = inner[0] if len(inner) == 1 else None
            if not isinstance(plain, Plain) or not plain.answers:
                raise Refused("what UNLOAD has in its parentheses is not a query")
            yield Unload(plain.sql, own.to, own.format, own.delimiter, own.header, own.extension)
        elif own is not None:
            yield own
        else:
            yield from (_plain(tree, dialect, values, columns or {}) for tree in _parsed(statement, dialect))


def _plain(tree: exp.Expr, dialect: DialectName, values: Mapping[str, str], columns: Columns) -> Plain:
    if isinstance(tree, exp.Command):
        raise Refused(f"{tree.this} is a statement for AWS alone, it cannot be run here")
    tables = _tables(tree)
    answers = isinstance(tree, exp.Query)
    tree = _bound(tree, values)
    if dialect != "duckdb":
        tree = _typed(tree, dialect, columns)
        tree = tree.transform(_rewritten, dialect)
    return Plain(tree.sql("duckdb", unsupported_level=sqlglot.ErrorLevel.IGNORE), answers, tables)


def _parsed(text: str, dialect: DialectName) -> list[exp.Expr]:
    try:
        return [tree for tree in sqlglot.parse(text, read=dialect) if tree is not None]
    except SqlglotError as error:
        raise Refused(f"this is not SQL as {dialect.capitalize()} knows it: {_first_line(error)}") from None


def _tokens(text: str, dialect: DialectName) -> list[Token]:
    try:
        return Dialect.get_or_raise(_RedshiftWords if dialect == "redshift" else dialect).tokenize(text)
    except SqlglotError as error:
        raise Refused(f"this is not SQL as {dialect.capitalize()} knows it: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines()[0]


def _tables(tree: exp.Expr) -> frozenset[tuple[str, str, str]]:
    inner = {cte.alias for cte in tree.find_all(exp.CTE)}
    return frozenset(
        (table.catalog, table.db, table.name)
        for table in tree.find_all(exp.Table)
        if table.name and not (table.name in inner and not table.db)
    )


def _bound(tree: exp.Expr, values: Mapping[str, str]) -> exp.Expr:
    """Put literals in the place of parameters: values of the tree, never text that is parsed again."""
    places = list(tree.find_all(exp.Placeholder, exp.Parameter))
    unnamed = [place for place in places if not place.this]
    if unnamed and len(unnamed) != len(SINCE_UNTIL):
        raise Refused(f"the two ? of a query are the first and the last day; this one has {len(unnamed)}")
    names = iter(SINCE_UNTIL)
    for place in sorted(unnamed, key=_position(tree)):
        place.set("this", next(names))
    for place in places:
        name = place.this if isinstance(place.this, str) else place.name
        if name not in values:
            raise Refused(f"the query needs a value for {name}, and it can have {', '.join(sorted(values))}")
        place.replace(exp.Literal.string(values[name]))
    return tree


def _position(tree: exp.Expr) -> Any:
    order = {id(node): number for number, node in enumerate(tree.walk(bfs=False))}
    return lambda node: order[id(node)]


def _typed(tree: exp.Expr, dialect: DialectName, columns: Columns) -> exp.Expr:
    """Find out the types, so that the division of two whole numbers is known for what it is.

    The columns of a table are known wherever it is named from; a query that names others is left to DuckDB to refuse.
    """
    typed = tree.copy()
    for table in typed.find_all(exp.Table):
        table.set("db", None)
        table.set("catalog", None)
    try:
        typed = qualify(
            typed,
            dialect=dialect,
            schema={name: dict(types) for name, types in columns.items()} or None,
            identify=False,
            quote_identifiers=False,
            validate_qualify_columns=False,
            expand_stars=False,
            expand_alias_refs=False,
        )
        typed = annotate_types(typed, schema={name: dict(types) for name, types in columns.items()}, dialect=dialect)
    except SqlglotError:
        return annotate_types(tree, dialect=dialect)
    divisions = zip(_divisions(tree), _divisions(typed), strict=True)
    for ours, theirs in divisions:
        for side in ("this", "expression"):
            ours.args[side].type = theirs.args[side].type
    return tree


def _divisions(tree: exp.Expr) -> list[exp.Div]:
    return list(tree.find_all(exp.Div, bfs=False))


def _rewritten(node: exp.Expr, dialect: DialectName) -> exp.Expr:
    if isinstance(node, exp.DateDiff) and dialect == "athena":
        unit = exp.Literal.string(node.text("unit").lower())
        return exp.Anonymous(this="DATE_SUB", expressions=[unit, node.expression, node.this])
    if (
        isinstance(node, exp.Extract)
        and dialect == "athena"
        and node.name.upper() in ("DAYOFWEEK", "DOW", "DAY_OF_WEEK")
    ):
        return exp.Extract(this=exp.var("ISODOW"), expression=node.expression)
    if isinstance(node, exp.CountIf):
        return exp.Count(this=exp.case().when(node.this.copy(), exp.Literal.number(1)))
    if isinstance(node, exp.Unnest) and len(node.expressions) == 1:
        return _unnested(node)
    return node


def _unnested(node: exp.Unnest) -> exp.Expr:
    """Make a column of each field where UNNEST names more columns than the one that DuckDB would make."""
    alias = node.args.get("alias")
    if alias is None or node.args.get("offset") or len(alias.columns) < 2:
        return node
    rows = exp.Anonymous(
        this="UNNEST",
        expressions=[node.expressions[0].copy(), exp.Kwarg(this=exp.var("recursive"), expression=exp.true())],
    )
    return exp.Subquery(this=exp.select(rows), alias=alias.copy())


class _Words:
    """The words of a statement that sqlglot does not take apart, read one by one."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self._text, self._tokens, self._next = text, tokens, 0

    def __bool__(self) -> bool:
        return self._next < len(self._tokens)

    def word(self) -> str:
        """Take the next word, in capitals; empty at the end."""
        if not self:
            return ""
        self._next += 1
        return self._tokens[self._next - 1].text.upper()

    def value(self) -> str:
        """Take the next string, number or name as it is, after an AS if there is one."""
        self.skip("AS")
        if not self.word():
            raise Refused(f"the statement ends too early: {self._text}")
        return self._tokens[self._next - 1].text

    def skip(self, *words: str) -> bool:
        """Step over these words if they are next, and say whether they were."""
        ahead = self._tokens[self._next : self._next + len(words)]
        if [token.text.upper() for token in ahead] != list(words):
            return False
        self._next += len(words)
        return True


def _own(statement: str, dialect: DialectName) -> Unload | Copy | ExternalSchema | None:
    """Read a statement that only Redshift has; None for any other."""
    words = _Words(statement, _tokens(statement, dialect))
    if dialect != "redshift":
        if words.skip("UNLOAD"):
            raise Refused("UNLOAD can be run here in Redshift's words only: UNLOAD ('SELECT …') TO 's3://…'")
        return None
    if words.skip("UNLOAD"):
        words.skip("(")
        query = words.value()
        words.skip(")")
        words.skip("TO")
        return _unload(query, words.value(), words)
    if words.skip("COPY"):
        return _copy(words)
    if words.skip("CREATE", "EXTERNAL", "SCHEMA"):
        words.skip("IF", "NOT", "EXISTS")
        return ExternalSchema(words.value())
    return None


def _unload(query: str, to: str, words: _Words) -> Unload:
    given: dict[str, Any] = {}
    while words:
        match words.word():
            case "IAM_ROLE" | "REGION" | "MAXFILESIZE":
                words.value()
                words.skip("MB") or words.skip("GB")
            case "FORMAT":
                words.skip("AS")
            case ("CSV" | "PARQUET") as format_:
                given["format"] = format_.lower()
                given |= {"delimiter": ","} if format_ == "CSV" and "delimiter" not in given else {}
            case "DELIMITER":
                given["delimiter"] = words.value()
            case "HEADER":
                given["header"] = True
            case "EXTENSION":
                given["extension"] = "." + words.value().removeprefix(".")
            case "PARALLEL":
                words.word()
            case "ALLOWOVERWRITE":
                pass
            case other:
                raise Refused(f"UNLOAD … {other} cannot be done here, FORMAT, DELIMITER, HEADER and EXTENSION can")
    return Unload(query, to, **given)


def _copy(words: _Words) -> Copy:
    table, columns = words.value(), []
    if words.skip("("):
        while not words.skip(")"):
            columns.append(words.value())
            words.skip(",")
    if not words.skip("FROM"):
        raise Refused("COPY needs FROM 's3://…'")
    source = words.value()
    given: dict[str, Any] = {}
    while words:
        match words.word():
            case "IAM_ROLE" | "REGION":
                words.value()
            case "FORMAT":
                words.skip("AS")
            case "CSV":
                given.setdefault("delimiter", ",")
            case "DELIMITER":
                given["delimiter"] = words.value()
            case "IGNOREHEADER":
                given["skip"] = int(words.value())
            case other:
                raise Refused(f"COPY … {other} cannot be done here, CSV, DELIMITER and IGNOREHEADER can")
    return Copy(table, tuple(columns), source, **given)
