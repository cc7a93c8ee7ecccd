"""Records into a Kinesis stream, by PutRecords."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from random import Random
from typing import Any, Final, Protocol

from clickstream.errors import Refused, Unavailable
from connectors.pauses import backoff
from generator.lines import MAX_KEY_CHARACTERS
from generator.pace import batches, size_of
from generator.records import Published, Record

# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html, the limits every stream has
MAX_RECORDS: Final = 500
MAX_REQUEST_BYTES: Final = 5 << 20
MAX_RECORD_BYTES: Final = 1 << 20  # of payload and key together

_BUSY: Final = {"LimitExceededException", "ProvisionedThroughputExceededException", "Throttling", "ThrottlingException"}
# botocore's errors by the names of their families, so that writing a file needs no AWS library
_UNREACHABLE: Final = {"ConnectionError", "HTTPClientError"}
_FROM_AWS: Final = {"BotoCoreError", "ClientError"}


class KinesisClient(Protocol):
    """The one method of `boto3.client("kinesis")` that is needed here."""

    def put_records(self, **request: Any) -> Any:
        """Take `StreamName` and `Records`, answer each record in `Records`."""


@dataclass(frozen=True, slots=True)
class KinesisPublisher:
    """Put records in batches; a batch is through before the next one starts.

    Entries that Kinesis turns away are put again, they alone, with growing pauses. So records of one key keep their
    order unless one of them has to be put again, and an answer lost on its way back makes duplicates. A stream that
    stays full or cannot be reached is `Unavailable`; a wrong name or a missing permission is `Refused` at once.

    `on_accepted(record, shard_id, sequence_number)` hears of every record taken, for whoever counts afterwards.
    """

    client: KinesisClient
    stream: str
    on_accepted: Callable[[Record, str, str], None] | None = None
    attempts: int = 10  # about half a minute
    linger: float = 0.25  # seconds
    sleep: Callable[[float], None] = time.sleep
    rng: Random = field(default_factory=Random)

    def publish(self, records: Iterable[Record]) -> Published:
        """Put them all; return when the last one is in a shard."""
        accepted = 0
        refused: Counter[str] = Counter()
        fitting = self._fitting(records, refused)
        for batch in batches(fitting, most=MAX_RECORDS, most_bytes=MAX_REQUEST_BYTES, linger=self.linger):
            self._put(batch, accepted)
            accepted += len(batch)
        return Published(accepted, dict(refused))

    def _fitting(self, records: Iterable[Record], refused: Counter[str]) -> Iterator[Record]:
        """Hold back what would make Kinesis refuse the whole request."""
        for record in records:
            if not 1 <= len(record.partition_key) <= MAX_KEY_CHARACTERS:
                refused[f"has a partition key of {len(record.partition_key)} characters, Kinesis takes 1 to 256"] += 1
            elif size_of(record) > MAX_RECORD_BYTES:
                refused[f"is larger than {MAX_RECORD_BYTES:,} bytes with its partition key, Kinesis takes no more"] += 1
            else:
                yield record

    def _put(self, batch: list[Record], before: int) -> None:
        left = batch
        why = ""
        for attempt in range(self.attempts):
            if attempt:
                self.sleep(backoff(attempt, self.rng))
            left, why = self._put_once(left)
            if not left:
                return
        raise Unavailable(
            f"Kinesis stream {self.stream} did not take {len(left)} records in {self.attempts} attempts ({why}); "
            f"{before + len(batch) - len(left)} were accepted. Next: see whether it is up and has shards enough, "
            f"aws kinesis describe-stream-summary --stream-name {self.stream}, or publish at a lower rate"
        )

    def _put_once(self, batch: list[Record]) -> tuple[list[Record], str]:
        """Return what is still to be put, and why."""
        entries = [{"PartitionKey": record.partition_key, "Data": record.payload} for record in batch]
        try:
            answers = self.client.put_records(StreamName=self.stream, Records=entries)["Records"]
        except Exception as error:
            return batch, self._passing(error)
        left, why = [], ""
        for record, answer in zip(batch, answers, strict=True):
            if answer.get("ErrorCode"):
                left.append(record)
                why = f"{answer['ErrorCode']}: {answer.get('ErrorMessage', '')}"
            elif self.on_accepted:
                self.on_accepted(record, answer["ShardId"], answer["SequenceNumber"])
        return left, why

    def _passing(self, error: Exception) -> str:
        """Describe trouble that may pass; raise any other."""
        families = {kind.__name__ for kind in type(error).__mro__}
        if families & _UNREACHABLE:
            return f"{type(error).__name__}: {error}"
        if not families & _FROM_AWS:
            raise error
        answer = getattr(error, "response", None) or {}
        code = answer.get("Error", {}).get("Code", type(error).__name__)
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return f"{code}: {error}"
        raise Refused(
            f"Kinesis stream {self.stream} refused PutRecords with {code} ({error}). "
            f"Next: check its name, region and your permissions, "
            f"aws kinesis describe-stream-summary --stream-name {self.stream}"
        ) from error
