"""The short form of `make chaos`, and a slow provider whose rows are made good later."""

import os
from collections import Counter
from pathlib import Path

import pytest

from cli.audit import Audit
from cli.replay import Replay
from clickstream.place import Status
from connectors.lake import Lake
from tests.chaos.__main__ import chaos, show
from tests.chaos.faults import FAULTS, from_elsewhere, geo_slow, twisted
from tests.chaos.scene import Scene
from tests.jobs import GEO

SHORT = [
    "kill-checkpoint",
    "kill-commit",
    "kill-worker",
    "redis-stopped",
    "redis-readonly",
    "put-records",
    "iterator",
    "reshard",
    "clocks",
    "poison",
    "hot-key",
]


def test_nothing_is_lost_and_nothing_there_twice_whatever_happens_and_the_audit_sees_a_loss(tmp_path: Path) -> None:
    as_root = ["disk-full"] if os.geteuid() == 0 else []  # a disk of its own takes root to mount

    rows = chaos(tmp_path, [*SHORT, *as_root, "recovery-off"], seed=1, rate=100)

    show(rows, "the short form")
    assert all(row.good for row in rows), [row for row in rows if not row.good]
    assert len(rows) == len(SHORT) + len(as_root) + 2
    assert rows[-1].lost > 0


def test_every_fault_has_a_name_that_is_listed() -> None:
    assert set(SHORT) < set(FAULTS)


def test_rows_of_a_slow_provider_flow_on_and_are_placed_by_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IPINFO_TOKEN", "a-token")
    with Scene(tmp_path, seed=2, rate=100) as scene, twisted(scene, from_elsewhere(scene.rng)):
        scene.wait_rows(20, lambda _: True)
        proof = geo_slow(scene)
        flowing = scene.judge_all()
        lake = Lake(scene.settings.lake.root)
    with capsys.disabled():
        print(f"\n    {proof}")
    before = _statuses(lake)
    assert flowing.balanced, str(flowing)
    assert before[Status.PENDING] + before[Status.UNAVAILABLE] >= 300

    root = scene.settings.lake.root.removeprefix("file://")
    Replay(source=f"{root}/raw", folder=tmp_path / "replay", lake=root, geo=GEO)()

    after = _statuses(lake)
    assert set(after) <= {Status.FOUND, Status.UNKNOWN}
    assert after.total() == before.total()
    verdict = Audit(lake, scratch=tmp_path, deep=True)()
    assert verdict.balanced, str(verdict)


def _statuses(lake: Lake) -> Counter[str]:
    counts: Counter[str] = Counter()
    for file in lake.files("enriched"):
        counts.update(lake.read(file, ["geo_status"])["geo_status"].to_pylist())
    return counts
