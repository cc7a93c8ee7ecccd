"""Every fault on this machine while events flow: what was lost, what is there twice, how long it took to recover."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from cli import screen
from cli.ledger import Kind, Verdict
from tests.chaos.faults import FAULTS
from tests.chaos.scene import NoProof, Scene
from tests.servers import KinesisLocal

LOST: Final = (Kind.LOST, Kind.NOT_IN_RAW, Kind.UNREADABLE)
DISK_MB: Final = 256
AWAY: Final = {"s3-down", "update-shard-count"}  # with the lake in S3 and the streams in kinesis-local
WITHOUT: Final = "killed with -9, recovery switched off"


class Row(NamedTuple):
    """What became of one fault."""

    fault: str
    sent: int
    lost: int
    twice: int  # or changed, or out of place
    offers_lost: int
    offers_repeated: int
    recovery: float | None  # seconds until all that was accepted before it was over is committed
    proof: str
    good: bool


def main() -> int:
    """Make the faults and print the table; return 1 unless all promises were kept and every fault has hit."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed sends the same events [%(default)s]")
    parser.add_argument("--rate", type=float, default=100.0, help="events a second [%(default)s]")
    parser.add_argument("--only", nargs="+", choices=[*FAULTS, "recovery-off"], help="just these", metavar="FAULT")
    parser.add_argument("--list", action="store_true", help="list the faults")
    given = parser.parse_args()
    if given.list:
        screen.table("", ["", ""], [[name, title] for name, (title, _) in FAULTS.items()])
        return 0
    began = time.monotonic()
    names = given.only or [*FAULTS, "recovery-off"]
    rows = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        rows = chaos(Path(folder), names, seed=given.seed, rate=given.rate)
    show(rows, f"seed {given.seed}, {given.rate:g} events/s, {time.monotonic() - began:.0f} s")
    return 0 if all(row.good for row in rows) else 1


def chaos(folder: Path, names: Sequence[str], *, seed: int, rate: float) -> list[Row]:
    """Make these faults one after the other, on as few jobs as will do; each row is judged by the audit."""
    os.environ.setdefault("IPINFO_TOKEN", "a-token")  # nobody checks it
    rows: list[Row] = []
    away = [name for name in names if name in AWAY]
    home = [name for name in names if name in FAULTS.keys() - AWAY]
    places: list[tuple[list[str], str, dict[str, Any]]] = []
    if home or not away:
        places.append((home, "its lake in a folder", {}))
    if away:
        places.append((away, "its lake in S3, its streams in kinesis-local", {"s3": True, "kinesis": KinesisLocal}))
    for number, (some, where, options) in enumerate(places):
        place = folder / str(number)
        with _disk(place, "disk-full" in some), Scene(place, seed=seed, rate=rate, **options) as scene:
            screen.step(f"starting the job, {where}")
            verdict: Verdict | None = None
            for name in some:
                row, verdict = _suffer(scene, name, verdict)
                rows.append(row)
                if not row.good:
                    break
            else:
                if some:
                    verdict = scene.judge_all()
                    rows.append(_whole("all of these together, every column compared", verdict))
                if "recovery-off" in names and number == len(places) - 1:
                    rows.append(_without_recovery(scene, verdict))
    return rows


def _suffer(scene: Scene, name: str, before: Verdict | None) -> tuple[Row, Verdict]:
    title, make = FAULTS[name]
    screen.step(title)
    scene.wait_rows(20, lambda _: True)
    accepted = len(scene.accepted)
    recovery: float | None = None
    try:
        proof = make(scene)
        recovery = scene.wait_committed()
    except NoProof as missed:
        proof = f"NO PROOF: {missed}"
    except Exception as failure:
        traceback.print_exc()
        proof = f"FAILED: {failure}"
    verdict = scene.judge()
    row = _row(title, len(scene.accepted) - accepted, verdict, before, recovery, proof)
    screen.step(f"  {proof}; lost {row.lost}, twice {row.twice}, {row.recovery} s")
    return row, verdict


def _row(title: str, sent: int, now: Verdict, before: Verdict | None, recovery: float | None, proof: str) -> Row:
    def more(*kinds: Kind) -> int:
        return sum(now.differences.get(k, 0) - (before.differences.get(k, 0) if before else 0) for k in kinds)

    repeats = (now.offers or {}).get("repeats", 0) - ((before.offers or {}).get("repeats", 0) if before else 0)
    lost = max(more(Kind.LOST), more(Kind.NOT_IN_RAW)) + more(Kind.UNREADABLE)  # most are both
    offers = more(Kind.OFFER_MISSING)
    twice = more(*(kind for kind in Kind if kind not in (*LOST, Kind.OFFER_MISSING)))
    good = not (lost or twice or offers) and recovery is not None
    return Row(title, sent, lost, twice, offers, repeats, None if recovery is None else round(recovery, 1), proof, good)


def _whole(title: str, verdict: Verdict) -> Row:
    return _row(title, verdict.totals["accepted"], verdict, None, 0.0, str(verdict))._replace(recovery=None)


def _without_recovery(scene: Scene, before: Verdict | None) -> Row:
    """Show that the judge sees a loss: a job that is killed, and whose successor knows nothing of it, loses records."""
    screen.step(WITHOUT)
    scene.flow_again()
    scene.wait_rows(50, lambda _: True)
    accepted = len(scene.accepted)
    os.killpg(scene.job.pid, signal.SIGKILL)
    in_flight = scene.in_flight
    scene.start_anew()
    scene.wait_rows(50, lambda _: True)
    verdict = scene.judge(patience=10)
    row = _row(WITHOUT, len(scene.accepted) - accepted, verdict, before, 0.0, f"{in_flight:,} records in flight")
    return row._replace(recovery=None, good=row.lost > 0, proof=f"{row.proof}, and the audit reports the loss")


@contextmanager
def _disk(folder: Path, wanted: bool) -> Iterator[None]:
    """Mount a small disk of its own, which can be filled without harm to others."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    if not wanted or os.geteuid() != 0:
        yield
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "chaos", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def show(rows: Sequence[Row], title: str) -> None:
    """Print the table."""
    columns = ["fault", "sent", "lost", "twice", "offers lost", "repeated", "recovery s", "", "proof"]
    cells: list[list[Any]] = [
        [*row[:6], "" if row.recovery is None else f"{row.recovery:.1f}", "ok" if row.good else "BROKEN", row.proof]
        for row in rows
    ]
    screen.table(title, columns, cells, right=(1, 2, 3, 4, 5, 6))


if __name__ == "__main__":
    sys.exit(main())
