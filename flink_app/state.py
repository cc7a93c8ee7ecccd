"""What a job leaves behind to begin again from: its checkpoints and savepoints in a folder of this machine."""

from pathlib import Path
from typing import Final

from clickstream.errors import Refused

CHECKPOINTS: Final = "checkpoints"
SAVEPOINTS: Final = "savepoints"
METADATA: Final = "_metadata"
"""The file that Flink puts into a checkpoint or savepoint last, whole: without it the checkpoint did not complete."""

REST: Final = "rest.url"
"""The file that says where the job's Flink answers, while it runs."""

FLINK_IS_GONE: Final = 75
"""The local job's exit code when the JVM has died under it: it can begin again from its last checkpoint."""


def latest(folder: Path) -> Path | None:
    """Return the state that completed last, or None if there is none.

    Only the last one will do: what came after an older one is in the lake already.
    """
    found = [*folder.glob(f"{CHECKPOINTS}/*/chk-*/{METADATA}"), *folder.glob(f"{SAVEPOINTS}/*/{METADATA}")]
    return max(found, key=_completed, default=folder / METADATA).parent if found else None


def is_savepoint(state: Path) -> bool:
    """Tell a savepoint, which a job leaves that was stopped in order, from a checkpoint."""
    return not state.name.startswith("chk-")


def check(folder: Path, state: Path | None) -> None:
    """Raise `Refused` unless the folder takes checkpoints, and `state` is one to begin from."""
    for name in (CHECKPOINTS, SAVEPOINTS):
        place = folder / name
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / ".writable").touch()
            (place / ".writable").unlink()
        except OSError as error:
            raise Refused(
                f"checkpoints cannot be written to {place} ({error.strerror}). Next: choose another folder, or make"
                f" room in this one"
            ) from None
    if state is not None and not (state / METADATA).is_file():
        there = "holds no completed checkpoint or savepoint" if state.is_dir() else "is not there, or cannot be reached"
        raise Refused(f"{state} {there}. Next: give the folder that has {METADATA} in it, such as …/chk-12")


def _completed(metadata: Path) -> tuple[int, int]:
    number = metadata.parent.name.removeprefix("chk-")
    return metadata.stat().st_mtime_ns, int(number) if number.isdigit() else 0
