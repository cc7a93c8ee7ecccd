"""The lake on a laptop, asked through DuckDB in the words that Athena and Redshift are asked in."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from analytics.dialects import Copy, DialectName, ExternalSchema, Plain, Unload, statements, tables_of
from clickstream.errors import Refused, Unavailable
from clickstream.schema import ENRICHED, FLATTENED, PARTITION, RAW, REJECTED
from connectors.lake import Lake

TABLES: Final = {"enriched": ENRICHED, "flattened": FLATTENED, "rejected": REJECTED, "raw": RAW}
ACCESSES: Final = pa.schema(
    [(name, pa.string()) for name in ("_key_", "name", "last_access", "last_sequence", "location")]
)
CUSTOMERS: Final = pa.schema(
    [(name, pa.string()) for name in ("customer_id", "pixel_id", "name")] + [("price_per_click", pa.decimal128(12, 4))]
)
_OTHERS: Final = {"redis": ACCESSES, "mysql": CUSTOMERS}
MEMORY: Final = "4GB"

_BATCH: Final = 10_000
_NOWHERE: Final = "/".join(f"{column.name}=" for column in PARTITION)

Rows = Callable[[], Iterable[Mapping[str, Any]]]
"""Reads another database's rows, once it is asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the last statement of a text came to, kept in DuckDB's table `answer` until the next."""

    columns: list[str]
    types: list[str]
    count: int
    said: str = ""  # of a statement that answers no rows
    _connection: duckdb.DuckDBPyConnection | None = field(default=None, repr=False)

    def rows(self, limit: int | None = None) -> Iterator[tuple[Any, ...]]:
        """Give the rows, a batch in memory at a time."""
        if self._connection is None:
            return
        cursor = self._connection.execute(f"FROM answer {'' if limit is None else f'LIMIT {limit:d}'}")
        while some := cursor.fetchmany(_BATCH):
            yield from some

    def write(self, path: Path, format_: str) -> None:
        """Write the rows as csv (with a header), json (one array) or parquet, in the place of the file."""
        options = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY", "parquet": "FORMAT parquet"}
        if self._connection is not None:
            self._connection.execute(f"COPY answer TO {_text(str(path))} ({options[format_]})")


class LocalLake:
    """The tables of a lake for DuckDB: only committed files, timestamps without a zone, partitions as columns.

    What is in an S3 is copied to `scratch` first, each table that a query names, whole. `redis` and `customers` are
    read when a query names a table of the catalogs `redis` or `mysql`. DuckDB keeps to `memory`, and writes what goes
    beyond to `scratch`. Where nobody has run the flatten job, `flattened` is `enriched` flattened on the way.
    `s3://…` in UNLOAD and COPY is a folder below `objects`.
    """

    def __init__(
        self,
        lake: Lake,
        scratch: Path,
        *,
        objects: Path,
        redis: Rows | None = None,
        customers: Rows | None = None,
        memory: str = MEMORY,
    ) -> None:
        self._lake, self._scratch, self._objects = lake, scratch, objects
        self._others = {"redis": redis, "mysql": customers}
        self._shown: set[tuple[str, str, str]] = set()
        self._columns: dict[str, dict[str, str]] = {}
        options: dict[str, Any] = {
            "memory_limit": memory,
            "temp_directory": str(scratch / "spill"),
            "autoinstall_known_extensions": False,  # nothing is fetched from the network
            "parquet_metadata_cache": True,  # each file's footer is asked for several times
        }
        try:
            self.connection = duckdb.connect(config=options)
        except duckdb.Error as error:
            raise Refused(f"DuckDB does not start: {_line(error)}. Next: write --memory as 4GB") from None
        try:
            self.connection.execute("SET TimeZone = 'UTC'")
        except RuntimeError as error:
            raise (KeyboardInterrupt if _is_ctrl_c(error) else error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.connection.close()
        if _is_ctrl_c(error):
            raise KeyboardInterrupt from None

    def ask(self, text: str, dialect: DialectName, values: Mapping[str, str]) -> Answer:
        """Run all statements of a text, and return what the last came to."""
        for table in sorted(tables_of(text, dialect)):
            self.show(*table)
        answer: Answer | None = None
        try:
            for statement in statements(text, dialect, values, self._columns):
                answer = self._run(statement)
        except duckdb.OutOfMemoryException as error:
            raise Refused(f"the query needs more memory ({_line(error)}). Next: give it more with --memory") from None
        except duckdb.IOException as error:
            raise Unavailable(f"a file could not be read or written: {_line(error)}. Next: try again") from None
        except duckdb.Error as error:
            raise Refused(f"the query cannot be run: {_line(error)}") from None
        if answer is None:
            raise Refused("there is no statement in the query")
        return answer

    def rows(self, sql: str, values: Mapping[str, str]) -> list[tuple[Any, ...]]:
        """Run a query in DuckDB's own words over tables that are shown."""
        named = {name: value for name, value in values.items() if f"${name}" in sql}
        return self.connection.execute(sql, named).fetchall()

    def has(self, table: str) -> bool:
        """Say whether the lake has files of a table."""
        return bool(self._lake.files(table))

    def show(self, catalog: str, schema: str, name: str) -> None:
        """Make a table known under a name, if it is one of the lake or of the other databases."""
        if (catalog, schema, name) in self._shown:
            return
        if catalog in self._others:
            relation = self._other(catalog, schema, name)
        elif name in TABLES or self._lake.files(name):
            relation = self._of_lake(name)
        else:
            return
        self._shown.add((catalog, schema, name))
        run = self.connection.execute
        if catalog:
            run(f"ATTACH IF NOT EXISTS ':memory:' AS {_name(catalog)}")
        place = ".".join(_name(part) for part in (catalog, schema) if part)
        if schema:
            run(f"CREATE SCHEMA IF NOT EXISTS {place}")
        run(f"CREATE OR REPLACE VIEW {f'{place}.' if place else ''}{_name(name)} AS {relation}")
        self._columns[name] = {column: type_ for column, type_, *_ in run(f"DESCRIBE {relation}").fetchall()}

    def _of_lake(self, name: str) -> str:
        files = self._lake.files(name)
        if name == "flattened" and not files:
            return f"SELECT {', '.join(_flat_columns())} FROM ({self._of_lake('enriched')})"
        paths = [str(self._lake.on_disk(file, self._scratch / "copies" / name)) for file in files]
        if name in TABLES:
            paths.insert(0, str(self._empty(name)))
        listed = ", ".join(map(_text, paths))
        read = f"read_parquet([{listed}], hive_partitioning = true, hive_types_autocast = false, union_by_name = true)"
        described = self.connection.execute(f"DESCRIBE FROM {read}").fetchall()
        zoned = [_name(column) for column, type_, *_ in described if type_ == "TIMESTAMP WITH TIME ZONE"]
        replaced = ", ".join(f"CAST({column} AS TIMESTAMP) AS {column}" for column in zoned)
        return f"SELECT *{f' REPLACE ({replaced})' if zoned else ''} FROM {read}"

    def _empty(self, name: str) -> Path:
        """Write a file without rows, so that a table has all of its columns whatever is in its files."""
        folder = self._scratch / "empty" / name / _NOWHERE
        folder.mkdir(parents=True, exist_ok=True)
        schema = pa.schema([(column.name, _without_zone(column.type)) for column in TABLES[name]])
        pq.write_table(schema.empty_table(), folder / "none")
        return folder / "none"

    def _other(self, catalog: str, schema: str, name: str) -> str:
        rows, columns = self._others[catalog], _OTHERS[catalog]
        if rows is None:
            raise Refused(f"the query reads {catalog}.{schema}.{name}, and there is no such database here")
        path = self._scratch / f"{catalog}.parquet"
        with pq.ParquetWriter(path, columns) as file:
            batch: list[Mapping[str, Any]] = []
            for row in rows():
                batch.append(row)
                if len(batch) == _BATCH:
                    file.write_table(pa.Table.from_pylist(batch, columns))
                    batch = []
            file.write_table(pa.Table.from_pylist(batch, columns))
        return f"FROM read_parquet({_text(str(path))})"

    def _run(self, statement: Plain | Unload | Copy | ExternalSchema) -> Answer:
        run = self.connection.execute
        match statement:
            case Plain(sql=sql, answers=True):
                self._keep(sql)
                described = run("DESCRIBE answer").fetchall()
                [(count,)] = run("SELECT count(*) FROM answer").fetchall()
                return Answer([one[0] for one in described], [one[1] for one in described], count, "", self.connection)
            case Plain(sql=sql):
                run(sql)
                return Answer([], [], 0, "done")
            case Unload():
                path = Path(f"{self._on_disk(statement.to)}000{statement.extension}")
                path.parent.mkdir(parents=True, exist_ok=True)
                csv = f"FORMAT csv, DELIMITER {_text(statement.delimiter)}, HEADER {statement.header}"
                options = csv if statement.format == "csv" else "FORMAT parquet"
                [(count,)] = run(f"COPY ({statement.query}) TO {_text(str(path))} ({options})").fetchall()
                return Answer([], [], 0, f"{count:,} rows are in {path}")
            case Copy():
                return Answer([], [], 0, f"{self._copy(statement):,} rows were loaded into {statement.table}")
            case ExternalSchema(name=name):
                for table in TABLES:
                    self.show("", name, table)
                return Answer([], [], 0, f"schema {name} shows {', '.join(TABLES)}")

    def _keep(self, sql: str) -> None:
        """Run a query into the table `answer`; sums are BIGINT as in Athena, where DuckDB makes them wider."""
        run = self.connection.execute
        described = run(f"DESCRIBE {sql}").fetchall()
        if len({column.lower() for column, *_ in described}) < len(described):
            raise Refused("two columns of the answer have the same name. Next: give them different ones with AS")
        wide = [_name(column) for column, type_, *_ in described if type_ == "HUGEINT"]
        casts = ", ".join(f"CAST({column} AS BIGINT) AS {column}" for column in wide)
        run(f"CREATE OR REPLACE TEMP TABLE answer AS SELECT *{f' REPLACE ({casts})' if wide else ''} FROM ({sql})")

    def _copy(self, copy: Copy) -> int:
        source = self._on_disk(copy.source)
        files = sorted(str(file) for file in source.parent.glob(f"{source.name}*") if file.is_file())
        if not files:
            raise Refused(f"there is no file whose name begins with {source}. Next: run the UNLOAD that writes it")
        columns = f" ({', '.join(map(_name, copy.columns))})" if copy.columns else ""
        loaded = 0
        for file in files:
            [(count,)] = self.connection.execute(
                f"COPY {_name(copy.table)}{columns} FROM {_text(file)}"
                f" (FORMAT csv, DELIMITER {_text(copy.delimiter)}, HEADER false, SKIP {copy.skip:d})"
            ).fetchall()
            loaded += count
        return loaded

    def _on_disk(self, uri: str) -> Path:
        return self._objects / uri.removeprefix("s3://") if uri.startswith("s3://") else Path(uri)


def _flat_columns() -> Iterator[str]:
    for column in ENRICHED:
        if pa.types.is_struct(column.type):
            yield from (f"{_name(column.name)}.{_name(inner.name)} AS {_name(inner.name)}" for inner in column.type)
        else:
            yield _name(column.name)
    yield from (_name(column.name) for column in PARTITION)


def _without_zone(type_: pa.DataType) -> pa.DataType:
    return pa.timestamp(type_.unit) if pa.types.is_timestamp(type_) else type_


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _is_ctrl_c(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and "interrupted" in str(error)  # DuckDB's word for it


def _line(error: Exception) -> str:
    return str(error).strip().split("\n\n")[0].replace("\n", " ")
