"""The users table as the SQL for Aurora makes it, in a MySQL that is there."""

from decimal import Decimal
from pathlib import Path

from connectors.customers import Customer
from connectors.users import Users
from tests.servers import MariaDb

SQL = Path(__file__).parents[2] / "deploy" / "sql" / "customers.sql"


def test_the_table_that_the_sql_makes_is_one_that_the_code_can_use(mariadb: MariaDb) -> None:
    mariadb.execute(f"DROP TABLE IF EXISTS {mariadb.database}.customers")
    statement = "\n".join(line for line in SQL.read_text().splitlines() if not line.startswith("--"))
    mariadb.execute(f"USE {mariadb.database}", statement)
    mariadb.execute(f"USE {mariadb.database}", statement)  # again is harmless

    with Users(mariadb.url, password=mariadb.password, tls_ca=mariadb.ca) as users:
        users.create()
        users.load([Customer("a", "p", "Ada", Decimal("0.25")), Customer("A", "p", "Ágnes", Decimal("12345678.1234"))])

        assert sorted(users.names()) == [("A", "Ágnes"), ("a", "Ada")]
