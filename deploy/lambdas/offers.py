"""Lambda `offers`: hands the offers of a Kinesis stream on to a webhook, or only counts them where there is none.

A record that is no offer, or one that the webhook would not take now, is reported as failed: Kinesis then brings it and
those after it again, and what goes on failing ends in the queue for that. An offer that was handed on is not handed on
again by the same instance; another one may, and the webhook tells copies by the `offer_id` it gets as Idempotency-Key.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord

from clickstream.errors import ClickstreamError, Refused, Unavailable
from connectors.offers import Seen, as_json, read_offer
from connectors.secrets import secret
from connectors.webhook import REDIRECTS, Home, Webhook

ATTEMPTS: Final = 3
TIMEOUT: Final = 5.0  # seconds to connect, and again for an answer
RESERVE: Final = 2 * ATTEMPTS * (1 + REDIRECTS) * TIMEOUT + 5.0  # seconds that one more offer may take

logger = Logger(service="offers")
metrics = Metrics(namespace="Clickstream", service="offers")


@dataclass(slots=True)
class Counts:
    """What became of a batch."""

    offers: int = 0
    repeats: int = 0
    turned_away: int = 0
    unreadable: int = 0
    undelivered: int = 0


@dataclass(slots=True)
class Batch:
    """Takes the records of one invocation; once the webhook is out of order it is left alone until the next one."""

    webhook: Webhook | None
    seen: Seen
    seconds_left: Callable[[], float]
    counts: Counts = field(default_factory=Counts)
    trouble: ClickstreamError | None = None

    def take(self, record: KinesisStreamRecord) -> None:
        """Deal with a record for good, or raise: then it is to come again."""
        data = record.kinesis.data_as_bytes()
        offer = read_offer(data)
        if offer is None:
            self.counts.unreadable += 1
            logger.warning("a record is no offer", extra={"record": record.event_id, "bytes": len(data)})
            raise Refused("the record is no offer")
        if offer.offer_id in self.seen:
            self.counts.repeats += 1
            return
        if self.webhook is not None:
            self._hand_on(self.webhook, offer.offer_id, as_json(data))
        self.counts.offers += 1
        self.seen.add(offer.offer_id)

    def _hand_on(self, webhook: Webhook, offer_id: str, body: bytes) -> None:
        try:
            if self.trouble is not None:
                raise self.trouble
            if self.seconds_left() < RESERVE:
                raise Unavailable("time is up. Next: fewer records a batch, or a faster webhook")
            status = webhook.deliver(offer_id, body)
        except ClickstreamError as trouble:
            self.counts.undelivered += 1
            if self.trouble is None:
                logger.error(str(trouble))
            self.trouble = trouble
            raise
        if status >= 400:
            self.counts.turned_away += 1
            logger.warning("the webhook turned an offer away", extra={"offer_id": offer_id, "status": status})


class _Kept:
    """What stays between two invocations."""

    seen = Seen()
    webhook: Webhook | None = None


def webhook_of(environ: Mapping[str, str]) -> Webhook | None:
    """Make the webhook whose address is in the secret that WEBHOOK names; None if it names none.

    WEBHOOK_ALLOW_PRIVATE has names and networks it may be at though they are not public, with commas between them.
    """
    url = secret(environ.get("WEBHOOK"), setting="WEBHOOK")
    if url is None:
        return None
    home = Home.of(environ.get("WEBHOOK_ALLOW_PRIVATE", "").split(","))
    return Webhook(url, home, attempts=ATTEMPTS, timeout=TIMEOUT)


@metrics.log_metrics
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> Mapping[str, Any]:
    """Deal with a batch of records; say which are to come again."""
    _Kept.webhook = _Kept.webhook or webhook_of(os.environ)
    batch = Batch(_Kept.webhook, _Kept.seen, lambda: context.get_remaining_time_in_millis() / 1000)
    processor = BatchProcessor(event_type=EventType.KinesisDataStreams, raise_on_entire_batch_failure=False)
    answer = process_partial_response(event, batch.take, processor, context)
    if batch.trouble is not None:
        _Kept.webhook = None  # its address may have been changed
    counts = batch.counts
    metrics.add_metric("Offers", MetricUnit.Count, counts.offers)
    metrics.add_metric("OffersRepeated", MetricUnit.Count, counts.repeats)
    metrics.add_metric("OffersTurnedAway", MetricUnit.Count, counts.turned_away)
    metrics.add_metric("OffersUnreadable", MetricUnit.Count, counts.unreadable)
    metrics.add_metric("OffersUndelivered", MetricUnit.Count, counts.undelivered)
    logger.info("batch", extra={name: getattr(counts, name) for name in Counts.__slots__})
    return answer
