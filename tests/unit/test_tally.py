"""What a run has put into the lake is counted to the end, whatever comes between."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.tally import Tally
from connectors.lake import Lake, LakeFile


def write(lake: Path, table: str, name: str, rows: int) -> None:
    folder = lake / table / "year=2021" / "month=07" / "day=12" / "hour=09"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"number": range(rows)}), folder / name)


def test_files_from_before_do_not_count_and_new_ones_do_once(tmp_path: Path) -> None:
    write(tmp_path, "enriched", "part-0", 7)
    tally = Tally(Lake(str(tmp_path)))

    write(tmp_path, "enriched", "part-1", 2)
    write(tmp_path, "rejected", "part-1", 1)
    write(tmp_path, "raw", "part-1", 3)

    assert tally.update().update().processed == 3
    assert dict(tally.rows) == {"enriched": 2, "rejected": 1, "suppressed": 0, "raw": 3}
    assert [Path(file.path).name for file in tally.new["enriched"]] == ["part-1"]


def test_a_file_that_ctrl_c_came_in_the_middle_of_is_counted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = Tally(Lake(str(tmp_path)))
    write(tmp_path, "enriched", "part-0", 2)

    def interrupted(_: Lake, __: LakeFile) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "rows", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tally.update()

    assert tally.update().processed == 2
