"""Lambda `names`: copies users' names from Aurora to Redis, everybody's by schedule and one's on sign-up.

It is invoked with `{"user_id": "35"}` by the trigger in `deploy/sql/signup.sql`, and by the schedule with anything that
says `"source": "aws.events"`. Both may come twice, late or in any order, which is harmless.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from clickstream.errors import ClickstreamError, Refused, Unavailable
from connectors.redis_door import RedisDoor
from connectors.secrets import secret
from connectors.users import Users, sync_names

RDS_CA: Final = Path(__file__).resolve().parents[2] / "rds-ca.pem"  # as the zip has it
WAITS: Final = (0.0, 0.5, 1.0, 2.0)
"""Seconds before each look for a user: the trigger runs within a transaction, which need not be committed yet."""

logger = Logger(service="names")
metrics = Metrics(namespace="Clickstream", service="names")


@dataclass(frozen=True, slots=True)
class Doors:
    """Aurora and Redis."""

    users: Users
    redis: RedisDoor

    @classmethod
    def open(cls, environ: Mapping[str, str]) -> "Doors":
        """Open both, both by TLS. DATABASE_URL has no user, who comes from the same secret as the password."""
        whose = environ["DATABASE_SECRET"]
        user = secret(f"{whose}#username", setting="DATABASE_SECRET")
        users = Users(
            environ["DATABASE_URL"].replace("://", f"://{quote(str(user), safe='')}@", 1),
            password=secret(f"{whose}#password", setting="DATABASE_SECRET"),
            tls_ca=environ.get("DATABASE_CA") or RDS_CA,
        )
        password = secret(environ.get("REDIS_PASSWORD"), setting="REDIS_PASSWORD")
        redis = RedisDoor.connect(environ["REDIS_URL"], password, timeout=5)
        redis.check()
        return cls(users, redis)

    def close(self) -> None:
        """Close both."""
        with closing(self.redis), closing(self.users):
            pass


class _Kept:
    """The doors between two invocations, while nothing is wrong with them: a password may have been changed."""

    doors: Doors | None = None


def who(event: Mapping[str, Any]) -> str | None:
    """Return the user an event is about, None if about all; anything else is `Refused`, and not repeated."""
    if event.get("source") == "aws.events":
        return None
    user_id = event.get("user_id")
    if not isinstance(user_id, str) or not user_id:
        raise Refused(
            'the event names no user. Next: invoke with {"user_id": "35"}, or {"source": "aws.events"} for everybody'
        )
    return user_id


def update(doors: Doors, user_id: str | None, sleep: Callable[[float], None] = time.sleep) -> int:
    """Copy everybody's names or one user's; `Unavailable` if that user is not there yet, so that Lambda tries again."""
    if user_id is None:
        return sync_names(doors.users, doors.redis).copied
    for wait in WAITS:
        sleep(wait)
        synced = sync_names(doors.users, doors.redis, user_id)
        if synced.unknown is None:
            return synced.copied
    raise Unavailable(
        "a user who has signed up is not in the table: not committed yet, or rolled back. "
        "Next: nothing, Lambda tries again and the schedule copies everybody"
    )


@metrics.log_metrics
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, int]:  # noqa: ARG001
    """Do what an event asks for; say how many names were copied."""
    try:
        user_id = who(event)
        _Kept.doors = _Kept.doors or Doors.open(os.environ)
        copied = update(_Kept.doors, user_id)
    except ClickstreamError as trouble:
        if _Kept.doors is not None:
            _Kept.doors.close()
            _Kept.doors = None
        logger.error(str(trouble))
        raise type(trouble)(str(trouble)) from None  # what it came from may show a name
    metrics.add_metric("NamesCopied", MetricUnit.Count, copied)
    logger.info("names copied", extra={"copied": copied, "everybody": user_id is None})
    return {"copied": copied}
