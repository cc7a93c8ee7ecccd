"""What a job is said to have died of."""

from cli.job import what_of

BUG = """Traceback (most recent call last):
  File "flink_app/function.py", line 35, in eval
    return _as_series(worker.outcome(payload))

  File "clickstream/batch.py", line 65, in outcome
    raise ZeroDivisionError("a bug of ours")
ZeroDivisionError: a bug of ours"""

ECHO = """Traceback (most recent call last):
  File "apache_beam/runners/worker/data_plane.py", line 652, in _read_inputs
    for elements in elements_iterator:
grpc._channel._MultiThreadedRendezvous: <_MultiThreadedRendezvous of RPC that terminated with:
	status = StatusCode.CANCELLED"""

CLIENT = """Traceback (most recent call last):
  File "flink_app/local.py", line 102, in run
    end.result()
py4j.protocol.Py4JJavaError: An error occurred while calling o354.get.
: java.util.concurrent.ExecutionException: Job execution failed."""

REPORTED = f"Caused by: java.lang.RuntimeException: Error received from SDK harness for instruction 1: {BUG}"


def test_the_traceback_that_flink_was_given_is_the_one() -> None:
    assert what_of(f"{ECHO}\n{CLIENT}\n{REPORTED}\n\n\tat java.base/java.lang.Thread.run\n{ECHO}\n") == BUG


def test_a_worker_that_printed_its_traceback_is_heard_through_the_echoes() -> None:
    assert what_of(f"{BUG}\n\n{ECHO}\n{CLIENT}\n") == BUG


def test_without_a_traceback_the_last_cause_is_said() -> None:
    assert what_of(f"{CLIENT}\nCaused by: one\n\tat a\nCaused by: two\n\tat b\n") == "Caused by: two"


def test_without_a_cause_the_last_line_is_said() -> None:
    assert what_of("starting\nthe setting lake.root is missing\n") == "the setting lake.root is missing"
