"""How long to wait before asking again."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final

LONGEST_WAIT: Final = 60.0  # seconds that whoever waits for an answer will wait, whatever Retry-After asks for


def backoff(failures: int, rng: Random) -> float:
    """Return the seconds to wait after so many failures in a row: 0.1, 0.2, 0.4 … 5, less up to a half by chance."""
    return min(5.0, 0.1 * 2.0 ** (failures - 1)) * rng.uniform(0.5, 1)


def asked_for(retry_after: str | None, longest: float = LONGEST_WAIT) -> float | None:
    """Read Retry-After, seconds or a date (RFC 9110, 10.2.3), up to `longest`; None if it is absent or unreadable."""
    if retry_after is None:
        return None
    try:
        seconds: float = int(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # TypeError: a date without a zone
            return None
    return min(max(seconds, 0.0), longest)
