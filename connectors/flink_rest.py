"""The metrics of a running job, asked of Flink's REST API."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests

from clickstream.errors import Unavailable

GROUP: Final = "kinesisanalytics"
"""The group that Managed Flink passes on to CloudWatch."""

Label = tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class FlinkRest:
    """Asks a Flink for the custom metrics of its running job. Asking changes nothing; no answer is `Unavailable`."""

    url: str
    timeout: float = 5.0

    def metrics(self, gauges: tuple[str, ...] = ()) -> Mapping[tuple[str, Label], int]:
        """Return each metric by name and label: the sum over all workers, of gauges the highest value."""
        found: dict[tuple[str, Label], int] = defaultdict(int)
        for job in self._ask("/jobs")["jobs"]:
            if job["status"] != "RUNNING":
                continue
            for vertex in self._ask(f"/jobs/{job['id']}")["vertices"]:
                for name, metric in self._of(f"/jobs/{job['id']}/vertices/{vertex['id']}/subtasks/metrics", gauges):
                    found[name] = max(found[name], metric) if name[0] in gauges else found[name] + metric
        return found

    def _of(self, path: str, gauges: tuple[str, ...]) -> Iterator[tuple[tuple[str, Label], int]]:
        ids = [one["id"] for one in self._ask(path) if f".{GROUP}." in one["id"]]
        if not ids:
            return
        for one in self._ask(path, get=",".join(ids), agg="sum,max"):
            *label, name = one["id"].partition(f".{GROUP}.")[2].split(".")
            value = one["max"] if name in gauges else one["sum"]
            yield (name, (label[0], label[1]) if len(label) == 2 else None), int(value)

    def _ask(self, path: str, **query: str) -> Any:
        try:
            answer = requests.get(f"{self.url}{path}", params=query, timeout=self.timeout)
            answer.raise_for_status()
            return answer.json()
        except (requests.RequestException, ValueError) as error:
            raise Unavailable(
                f"Flink at {self.url} does not answer ({type(error).__name__}). Next: see whether the job is running"
            ) from None
