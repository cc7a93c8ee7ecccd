"""When an event earns its user an offer."""

from hashlib import sha256
from typing import Final

HIGH_INTENT_EVENT: Final = "ViewContent"
HIGH_INTENT_PERCENT: Final = 60
"""More of a page than this must have been viewed."""

FIELDS: Final = (
    "offer_id",
    "timestamp",
    "event_name",
    "user_id",
    "click_id",
    "product_id",
    "price",
    "percent_viewed",
)
"""What the offers stream carries, one flat JSON object an offer."""


def earns(event_name: str, percent_viewed: float) -> bool:
    """Say whether such an event earns its user an offer."""
    return event_name == HIGH_INTENT_EVENT and percent_viewed > HIGH_INTENT_PERCENT


def id_of_click(click_id: str) -> str:
    """Return the id of the offer that a click earns, the same however often the click is processed."""
    return sha256(f"offer:{click_id}".encode()).hexdigest()[:32]
