"""`clickstream offers`: watch the offers as the job finds them, and hand them on to a webhook."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli import screen
from clickstream.errors import Refused
from connectors.kinesis_reader import Record, read
from connectors.offers import Offer, Seen, as_json, read_offer
from connectors.positions import AtTimestamp, Checkpoint, Latest, Start, TrimHorizon

if TYPE_CHECKING:
    from connectors.webhook import Webhook

COLUMNS: Final = f"{'time':<19}  {'event':<11}  {'user':<10}  {'product':>10}  {'price':>10}  {'viewed':>6}  offer"


def as_columns(offer: Offer) -> bytes:
    """Write an offer under `COLUMNS`; what could steer a terminal is left out of it."""
    line = (
        f"{offer.timestamp:%Y-%m-%d %H:%M:%S}  {offer.event_name:<11}  {offer.user_id:<10}  {offer.product_id:>10}  "
        f"{offer.price:>10.2f}  {offer.percent_viewed:>5.1f}%  {offer.offer_id}"
    )
    return screen.printable(line).encode()


@dataclass(slots=True)
class Consumer:
    """Takes records one by one: hands an offer on, shows it, and counts what became of each."""

    show: Callable[[Offer, bytes], None]
    complain: Callable[[str], None]
    webhook: "Webhook | None" = None
    seen: Seen = field(default_factory=Seen)
    offers: int = 0
    repeats: int = 0
    unreadable: int = 0
    turned_away: int = 0

    def take(self, record: Record) -> None:
        """Deal with a record for good, whatever it is; raises only when the webhook or the output is out of order."""
        offer = read_offer(record.data)
        if offer is None:
            self.unreadable += 1
            where = f"{record.shard_id}, sequence number {record.sequence_number}"
            self.complain(f"a record is not a readable offer: {len(record.data)} bytes in {where}")
        elif offer.offer_id in self.seen:
            self.repeats += 1
        else:
            self._hand_on(offer, as_json(record.data))
            self.show(offer, record.data)
            self.offers += 1
            self.seen.add(offer.offer_id)

    def _hand_on(self, offer: Offer, body: bytes) -> None:
        if self.webhook is None:
            return
        status = self.webhook.deliver(offer.offer_id, body)
        if status >= 400:
            self.turned_away += 1
            self.complain(f"the webhook at {self.webhook.host} answered {status} to offer {offer.offer_id}")

    def summary(self) -> str:
        """Say what it came to."""
        answers = f", {self.turned_away} of them turned away by the webhook" if self.webhook else ""
        return f"{self.offers} offers{answers}; {self.repeats} repeats left out, {self.unreadable} records unreadable"


def offers(
    *,
    stream: Annotated[str, typer.Option(help="The Kinesis stream that the job puts offers into.")] = "offers",
    endpoint: Annotated[
        str | None, typer.Option(help="Where Kinesis is, if not at AWS: http://127.0.0.1:4567.", metavar="URL")
    ] = None,
    region: Annotated[str | None, typer.Option(help="AWS region; else the one of your AWS settings.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
    since: Annotated[
        str,
        typer.Option(
            help="Where to begin: trim (the oldest there is), latest, or a time in UTC like 2021-07-12T12:00.",
            metavar="trim|latest|TIME",
        ),
    ] = "trim",
    webhook: Annotated[
        str | None, typer.Option(help="POST each offer to this https:// address before it is shown.", metavar="URL")
    ] = None,
    allow_private: Annotated[
        list[str] | None,
        typer.Option(
            help="A host or network of your own that the webhook may be at, or redirect to, and by http:// too: "
            "shop.internal, 10.0.0.0/8. May be given more than once.",
            metavar="NAME|NETWORK",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines, as is done when piped.")] = False,
    limit: Annotated[int | None, typer.Option(help="Stop after this many offers.", min=1, metavar="N")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Remember in this file what was handled, and go on from there.", metavar="FILE"),
    ] = None,
) -> None:
    """Print the offers in the stream, one a line, and hand them on to a webhook if there is one.

    Copies of an offer are left out as long as it is among the last 100,000.
    With --checkpoint nothing is lost, whatever ends this; after a crash the offers of its last second come once more.

    \b
    clickstream offers --endpoint http://127.0.0.1:4567
    clickstream offers --follow --since latest | jq .product_id
    clickstream offers --follow --checkpoint seen.json --webhook https://shop.example/offers
    """  # noqa: D301  # the backslash is for typer: leave these lines as they are
    from connectors.webhook import Home, Webhook  # noqa: PLC0415  # HTTP takes a moment

    start = _start(since)
    hook = Webhook(webhook, Home.of(allow_private or ())) if webhook else None
    kept = Checkpoint.load(checkpoint, stream) if checkpoint else Checkpoint(stream)
    if kept.positions:
        _say(f"going on from {checkpoint}")
    columns = sys.stdout.isatty() and not json
    consumer = Consumer(_in_columns if columns else _in_json, _say, hook)
    client = kinesis_client(endpoint, region)
    with _ending_well(consumer, interrupted=0 if follow else 130):
        if columns:
            typer.echo(COLUMNS)
        seek = _is_aws(client.meta.endpoint_url)
        with closing(read(client, stream, start, follow=follow, checkpoint=kept, seek=seek)) as records:
            for record in records:
                consumer.take(record)
                if consumer.offers == limit:
                    kept.handled(record.shard_id, record.sequence_number)
                    break


@contextmanager
def _ending_well(consumer: Consumer, interrupted: int) -> Iterator[None]:
    """Print the summary whatever happens. Ctrl-C and SIGTERM are a way to end this, and so is a reader who left."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(interrupted) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes
    finally:
        signal.signal(signal.SIGTERM, before)
        _say(consumer.summary())


def _in_columns(offer: Offer, _: bytes) -> None:
    typer.echo(as_columns(offer))


def _in_json(_: Offer, data: bytes) -> None:
    typer.echo(as_json(data))


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _start(since: str) -> Start:
    if since == "trim":
        return TrimHorizon()
    if since == "latest":
        return Latest()
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise typer.BadParameter(f"{since!r} is neither trim, latest nor a time like 2021-07-12T12:00") from None
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > datetime.now(UTC):
        raise typer.BadParameter(f"{since} is yet to come; what arrives from now on is --since latest")
    return AtTimestamp(moment)


def kinesis_client(endpoint: str | None, region: str | None) -> Any:
    """Make a client for AWS, or for a stand-in at an endpoint. Whoever calls tries again by themselves."""
    import boto3  # noqa: PLC0415  # it takes a second
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    settings: dict[str, Any] = {"endpoint_url": endpoint, "region_name": region}
    config = {"retries": {"total_max_attempts": 1}, "read_timeout": 20}  # the reader tries again by itself
    if endpoint and endpoint.startswith("http://"):  # a stand-in, which looks at none of this but wants to have it
        settings |= {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        settings["region_name"] = region or "us-east-1"
        config["proxies"] = {}
    try:
        return boto3.client("kinesis", config=Config(**config), **settings)
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no address
        raise Refused(
            f"Kinesis cannot be asked: {error}. Next: give --region eu-central-1, or your own; aws configure list"
        ) from error


def _is_aws(endpoint: str) -> bool:
    return ".amazonaws.com" in endpoint
