"""The dashboard of a lake in S3 is that of the same lake in a folder."""

from pathlib import Path
from uuid import uuid4

import pytest

from analytics.dashboard.answers import answers
from connectors.lake import Lake
from tests.servers import S3Server
from tests.shop_lake import clicks, write


def test_a_lake_in_s3_is_summed_up_as_one_in_a_folder(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    bucket = f"lake-{uuid4().hex[:8]}"
    s3_server.client().create_bucket(Bucket=bucket)
    lakes = [Lake(str(tmp_path / "lake")), Lake(f"s3://{bucket}/lake", s3_server.endpoint)]
    for lake in lakes:
        write(lake, clicks(100))

    in_a_folder, in_s3 = (answers(lake, tmp_path / f"scratch-{n}", lambda *_: None) for n, lake in enumerate(lakes))

    assert in_s3 == in_a_folder
    assert sum(row[-1] for row in in_s3.by_event.rows) == 100
