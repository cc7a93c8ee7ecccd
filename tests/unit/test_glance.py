"""What is said of a job's metrics, given what its REST API answers."""

from typing import Any

import pytest

from cli.metrics import Meters
from connectors.flink_rest import FlinkRest
from connectors.lake import Lake

ANSWERS: dict[str, Any] = {
    "/jobs": {"jobs": [{"id": "old", "status": "FINISHED"}, {"id": "j", "status": "RUNNING"}]},
    "/jobs/j": {"vertices": [{"id": "v"}, {"id": "sink"}]},
    "/jobs/j/vertices/sink/subtasks/metrics": [{"id": "enriched.numRecordsIn"}],
    "/jobs/j/vertices/v/subtasks/metrics": [{"id": "decode.numRecordsIn"}]
    + [
        {"id": f"decode.kinesisanalytics.{name}", "sum": total, "max": most}
        for name, total, most in (
            ("decoded", 12345678.0, 9000000.0),
            ("reason.empty.rejected", 2.0, 1.0),
            ("reason.bad_ip.rejected", 1.0, 1.0),
            ("provider_errors", 4.0, 3.0),
            ("redis_breaker", 3.0, 2.0),
        )
    ],
}


@pytest.fixture
def flink(monkeypatch: pytest.MonkeyPatch) -> FlinkRest:
    def ask(_: FlinkRest, path: str, **query: str) -> Any:
        answer = ANSWERS[path]
        return [one for one in answer if one["id"] in query["get"].split(",")] if "get" in query else answer

    monkeypatch.setattr(FlinkRest, "_ask", ask)
    return FlinkRest("http://127.0.0.1:1")


def test_counts_are_sums_over_the_workers_and_gauges_their_highest(flink: FlinkRest) -> None:
    assert flink.metrics(("redis_breaker",)) == {
        ("decoded", None): 12345678,
        ("rejected", ("reason", "empty")): 2,
        ("rejected", ("reason", "bad_ip")): 1,
        ("provider_errors", None): 4,
        ("redis_breaker", None): 2,
    }


def test_prometheus_is_told_what_each_is_and_each_once(flink: FlinkRest, tmp_path: Any) -> None:
    lines = str(Meters(flink, Lake(str(tmp_path)))).splitlines()

    assert lines[2] == "clickstream_decoded_total 12345678"
    assert lines[3:7] == [
        "# HELP clickstream_rejected_total records that are none, by reason",
        "# TYPE clickstream_rejected_total counter",
        'clickstream_rejected_total{reason="bad_ip"} 1',
        'clickstream_rejected_total{reason="empty"} 2',
    ]
    assert lines[-2:] == ["# TYPE clickstream_redis_breaker gauge", "clickstream_redis_breaker 2"]


def test_trouble_is_said_in_the_live_line(flink: FlinkRest, tmp_path: Any) -> None:
    words = Meters(flink, Lake(str(tmp_path))).words()

    assert words == " · 3 rejected · 0 offers · geo provider failed 4 times · Redis is left alone"
