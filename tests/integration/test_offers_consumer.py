"""`clickstream offers` as a process of its own, on a real stream that changes while it is read."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cli.offers import offers
from cli.servers import PROJECT, Kinesalite, aws_client
from clickstream.errors import Refused, Unavailable
from connectors.kinesis_reader import MAX_RECORDS, read
from connectors.positions import Latest
from tests.shop import Shop

COMMAND = [sys.executable, "-c", "import typer; from cli.offers import offers; typer.run(offers)"]
PATIENCE = 30.0  # seconds


def offer(number: int) -> bytes:
    return json.dumps(
        {
            "timestamp": "2021-07-12 12:01:58.732726",
            "event_name": "ViewContent",
            "percent_viewed": 87.5,
            "product_id": number,
            "price": 417.97,
            "user_id": str(number % 10),
            "click_id": f"click-{number}",
            "offer_id": f"offer-{number}",
        }
    ).encode()


class Stream:
    """The stream as its owner sees it."""

    def __init__(self, kinesalite: Kinesalite, name: str) -> None:
        self.endpoint = kinesalite.endpoint
        self.name = name
        self.client = kinesalite.client()

    def put(self, *records: bytes) -> None:
        """Put records; those of one user into one shard."""
        for start in range(0, len(records), 500):
            entries = [{"Data": each, "PartitionKey": _key(each)} for each in records[start : start + 500]]
            answer = self.client.put_records(StreamName=self.name, Records=entries)
            assert answer["FailedRecordCount"] == 0

    def open_shards(self) -> list[dict[str, Any]]:
        shards = self.client.list_shards(StreamName=self.name)["Shards"]
        open_ones = [each for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"]]
        return sorted(open_ones, key=lambda each: int(each["HashKeyRange"]["StartingHashKey"]))

    def split(self) -> None:
        """Split the first open shard."""
        shard = self.open_shards()[0]
        low, high = (int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey"))
        before = len(self.open_shards())
        middle = str((low + high) // 2)
        self.client.split_shard(StreamName=self.name, ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)
        eventually(lambda: len(self.open_shards()) == before + 1)

    def merge(self) -> None:
        """Merge the first two open shards."""
        one, other = self.open_shards()[:2]
        before = len(self.open_shards())
        self.client.merge_shards(
            StreamName=self.name, ShardToMerge=one["ShardId"], AdjacentShardToMerge=other["ShardId"]
        )
        eventually(lambda: len(self.open_shards()) == before - 1)

    def command(self, *options: str) -> list[str]:
        return [*COMMAND, "--stream", self.name, "--endpoint", self.endpoint, *options]


def _key(record: bytes) -> str:
    try:
        return str(json.loads(record)["user_id"])
    except (ValueError, TypeError, KeyError):
        return "unreadable"


@pytest.fixture
def its(kinesalite: Kinesalite, stream: str) -> Stream:
    return Stream(kinesalite, stream)


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextmanager
def started(command: list[str], out: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a consumer that prints into a file."""
    with (
        out.open("ab") as file,
        subprocess.Popen(command, cwd=PROJECT, stdout=file, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def products(lines: str) -> list[int]:
    return [json.loads(line)["product_id"] for line in lines.splitlines()]


def in_order(numbers: list[int]) -> bool:
    """Say whether each user's offers are in the order they were put in."""
    users = [[number for number in numbers if number % 10 == user] for user in range(10)]
    return all(of_one == sorted(of_one) for of_one in users)


# The stream as it is


def test_all_offers_are_printed_once_and_what_is_none_is_counted(its: Stream) -> None:
    numbers = list(range(2 * MAX_RECORDS + 500))
    its.put(*map(offer, numbers), *map(offer, numbers[-700:]), b"a secret", b"\xff", b'{"user_id": "35"}')

    done = run(its.command())

    assert Counter(products(done.stdout)) == Counter(numbers)
    assert in_order(products(done.stdout))
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "4500 offers; 700 repeats left out, 3 records unreadable"
    assert len(re.findall(r"not a readable offer: \d+ bytes in shardId-\d+, sequence number \d+", done.stderr)) == 3
    assert "secret" not in done.stderr


def test_a_reshard_in_the_past_changes_nothing(its: Stream) -> None:
    for step, reshard in enumerate([its.split, its.merge, its.split]):
        its.put(*map(offer, range(100 * step, 100 * step + 100)))
        reshard()
    its.put(*map(offer, range(300, 400)))

    done = run(its.command())

    assert sorted(products(done.stdout)) == list(range(400))
    assert in_order(products(done.stdout))


def test_a_moment_in_the_past_is_found_although_kinesalite_cannot_look_for_it(its: Stream) -> None:
    its.put(offer(1))
    time.sleep(0.05)
    moment = datetime.now(UTC)
    time.sleep(0.05)
    its.put(offer(11))

    done = run(its.command("--since", moment.isoformat()))

    assert products(done.stdout) == [11]


def test_a_terminal_gets_columns(its: Stream) -> None:
    its.put(offer(1))
    terminal, far_end = pty.openpty()
    with subprocess.Popen(its.command(), cwd=PROJECT, stdout=far_end, stderr=subprocess.DEVNULL) as process:
        os.close(far_end)
        printed = b""
        while select.select([terminal], [], [], PATIENCE)[0]:
            try:
                printed += os.read(terminal, 4096)
            except OSError:  # the far end is closed
                break
    os.close(terminal)

    assert process.returncode == 0
    header, line = printed.decode().splitlines()
    assert header.split() == ["time", "event", "user", "product", "price", "viewed", "offer"]
    assert line.split() == ["2021-07-12", "12:01:58", "ViewContent", "1", "1", "417.97", "87.5%", "offer-1"]


def test_a_reader_who_leaves_early_hears_no_complaint(its: Stream, tmp_path: Path) -> None:
    its.put(*map(offer, range(2000)))
    checkpoint = tmp_path / "checkpoint"

    with subprocess.Popen(
        its.command("--checkpoint", str(checkpoint)),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = [process.stdout.readline() for _ in range(3)]
        process.stdout.close()
        complaints = process.stderr.read()

    assert len(products("".join(first))) == 3
    assert process.returncode == 0
    assert re.fullmatch(r"\d+ offers; 0 repeats left out, 0 records unreadable\n", complaints)


def test_a_limit_ends_it_and_the_next_one_goes_on(its: Stream, tmp_path: Path) -> None:
    its.put(*map(offer, range(100)))
    command = its.command("--checkpoint", str(tmp_path / "checkpoint"), "--limit", "7")

    first, second = run(command), run(command)

    assert len(products(first.stdout)) == len(products(second.stdout)) == 7
    assert not set(products(first.stdout)) & set(products(second.stdout))
    assert second.stderr.startswith(f"going on from {tmp_path / 'checkpoint'}\n7 offers;")


def test_a_stream_that_is_not_there_is_refused(kinesalite: Kinesalite) -> None:
    with pytest.raises(Refused, match="stream nowhere refused ListShards with ResourceNotFoundException"):
        offers(stream="nowhere", endpoint=kinesalite.endpoint)


def test_a_kinesis_that_is_not_there_is_unavailable() -> None:
    client = aws_client("kinesis", "http://127.0.0.1:9")

    with pytest.raises(Unavailable, match="did not answer ListShards in 2 attempts"):
        next(read(client, "offers", attempts=2))


# Following


def test_splits_and_merges_are_followed(its: Stream, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started(its.command("--follow"), out) as process:
        for step, reshard in enumerate([its.split, its.split, its.merge, its.merge, its.merge, its.split]):
            its.put(*map(offer, range(100 * step, 100 * step + 100)))
            reshard()
        its.put(*map(offer, range(600, 700)))
        eventually(lambda: len(out.read_text().splitlines()) >= 700)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=PATIENCE)

    assert sorted(products(out.read_text())) == list(range(700))
    assert in_order(products(out.read_text()))
    assert complaints == "700 offers; 0 repeats left out, 0 records unreadable\n"
    assert process.returncode == 0


def test_the_latest_leaves_out_what_was_there(its: Stream, kinesalite: Kinesalite) -> None:
    its.put(*map(offer, range(100)))
    client = kinesalite.client()
    pauses = 0

    def put_later(_: float) -> None:
        nonlocal pauses
        pauses += 1
        its.put(offer(1000 + pauses))

    records = read(client, its.name, Latest(), follow=True, seek=False, sleep=put_later)

    assert json.loads(next(records).data)["product_id"] == 1001


def test_sigterm_ends_it_as_ctrl_c_does(its: Stream, tmp_path: Path) -> None:
    its.put(*map(offer, range(10)))
    out = tmp_path / "out"
    command = its.command("--follow", "--checkpoint", str(tmp_path / "checkpoint"))

    with started(command, out) as process:
        eventually(lambda: len(out.read_text().splitlines()) == 10)
        process.terminate()
        _, complaints = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert complaints.startswith("10 offers;")
    assert run(its.command("--checkpoint", str(tmp_path / "checkpoint"))).stdout == ""


def killed(command: list[str]) -> str:
    """Read a consumer's lines so slowly that it saves its position in between, and kill it in the middle of one."""
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        printed = ""
        for _ in range(3):
            printed += "".join(process.stdout.readline() for _ in range(400))
            time.sleep(1.1)
        process.kill()
        printed += process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    return printed[: printed.rindex("\n") + 1]


def test_a_killed_consumer_goes_on_without_loss(its: Stream, tmp_path: Path) -> None:
    command = its.command("--follow", "--checkpoint", str(tmp_path / "checkpoint"))
    its.put(*map(offer, range(3000)))

    first = products(killed(command))
    its.split()
    its.put(*map(offer, range(3000, 5000)))
    second = products(killed(command))
    its.merge()
    its.put(*map(offer, range(5000, 6000)))
    rest = products(run(its.command("--checkpoint", str(tmp_path / "checkpoint"))).stdout)

    assert 1200 < len(first) < 3000
    assert {*first, *second, *rest} == set(range(6000))
    assert len(first) + len(second) + len(rest) < 6000 + 2 * 1500  # it did not begin again


def test_kinesis_may_be_away_for_a_while(tmp_path: Path) -> None:
    with Kinesalite(tmp_path / "kinesalite", durable=True) as server:
        server.create_stream("offers", shards=2)
        its = Stream(server, "offers")
        its.put(*map(offer, range(10)))
        out = tmp_path / "out"
        with started(its.command("--follow"), out) as process:
            eventually(lambda: len(out.read_text().splitlines()) == 10)
            server.stop()
            time.sleep(1)
            server.start()
            its.put(*map(offer, range(10, 20)))
            eventually(lambda: len(out.read_text().splitlines()) == 20)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)

    assert sorted(products(out.read_text())) == list(range(20))


# Webhooks


def test_each_offer_reaches_the_webhook_once_and_refusals_are_reported(its: Stream) -> None:
    its.put(*map(offer, range(20)), *map(offer, range(20)))
    with Shop() as shop:
        shop.answers.extend([(200, {}, b""), (503, {}, b""), (410, {}, b"")])

        done = run(its.command("--webhook", shop.url, "--allow-private", "127.0.0.1"))

    delivered = Counter(headers["Idempotency-Key"] for _, headers, _ in shop.requests)
    assert delivered.keys() == {f"offer-{number}" for number in range(20)}
    assert sorted(delivered.values()) == [1] * 19 + [2]  # 503 and then 410
    assert all(json.loads(body) == json.loads(offer(json.loads(body)["product_id"])) for _, _, body in shop.requests)
    assert done.stderr.splitlines()[-1] == (
        "20 offers, 1 of them turned away by the webhook; 20 repeats left out, 0 records unreadable"
    )
    assert re.search(r"the webhook at http://127\.0\.0\.1:\d+ answered 410 to offer offer-\d+\n", done.stderr)
    assert "hush" not in done.stderr


def test_an_offer_the_webhook_did_not_take_comes_again(its: Stream, tmp_path: Path) -> None:
    its.put(*map(offer, range(20)))
    checkpoint = tmp_path / "checkpoint"
    with Shop() as shop:
        shop.answers.extend([(200, {}, b"")] * 5 + [(302, {}, b"")])
        with pytest.raises(Refused, match="redirect"):
            offers(
                stream=its.name,
                endpoint=its.endpoint,
                webhook=shop.url,
                allow_private=["127.0.0.1"],
                checkpoint=checkpoint,
            )
        offers(
            stream=its.name, endpoint=its.endpoint, webhook=shop.url, allow_private=["127.0.0.1"], checkpoint=checkpoint
        )

    delivered = Counter(headers["Idempotency-Key"] for _, headers, _ in shop.requests)
    assert delivered.keys() == {f"offer-{number}" for number in range(20)}
    assert sorted(delivered.values()) == [1] * 19 + [2]  # the one that was redirected


def test_a_webhook_at_home_needs_to_be_allowed(its: Stream) -> None:
    with pytest.raises(Refused, match="--allow-private"):
        offers(stream=its.name, endpoint=its.endpoint, webhook="https://127.0.0.1/offers")
