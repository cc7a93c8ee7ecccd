"""The users table and its names in Redis, from the command line."""

import time
from contextlib import closing
from pathlib import Path

from cli import screen
from clickstream.errors import Refused, Unavailable
from connectors.customers import customers_in
from connectors.redis_door import RedisDoor
from connectors.secrets import secret
from connectors.users import Users, sync_names


def sync(
    database: str,
    database_password: str | None,
    database_ca: Path | None,
    redis: str,
    redis_password: str | None,
    *,
    only: str | None,
    every: float | None,
) -> None:
    """Copy names once, or again and again; then an outage of either side only delays the next time."""
    with closing(RedisDoor.connect(redis, secret(redis_password), timeout=5)) as door:
        door.check()
        with Users(database, password=secret(database_password), tls_ca=database_ca) as users:
            while True:
                try:
                    synced = sync_names(users, door, only)
                except Unavailable as trouble:
                    if every is None:
                        raise
                    screen.err.print(str(trouble), markup=False)
                else:
                    if synced.unknown is not None:
                        raise Refused("that user is not in the customers table. Next: clickstream users load FILE")
                    screen.step(f"{synced.copied:,} names are in Redis")
                if every is None:
                    return
                time.sleep(every)


def load(file: Path, database: str, password: str | None, ca: Path | None) -> None:
    """Load a CSV file, creating the table if need be."""
    with Users(database, password=secret(password), tls_ca=ca) as users:
        users.create()
        count = users.load(customers_in(file))
    screen.step(f"{count:,} users are in the database")
