"""What is uploaded for the stacks: zips and scripts under keys that hold a hash of their content."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError

from clickstream.errors import Refused, Unavailable
from deploy.aws import Clients, Tell, answering, code

FILES: Final = {
    "JobKey": "job.zip",
    "NamesLambdaKey": "names.zip",
    "ScalingLambdaKey": "scaling.zip",
    "OffersLambdaKey": "offers.zip",
    "FlattenScriptKey": "flatten.py",
}
"""The parameter of a template that wants the key, and the file's name."""


@dataclass(slots=True)
class Artifacts:
    """Builds what is asked for, once, into a folder; the same content has the same key, wherever it is built."""

    folder: Path
    builders: Mapping[str, Callable[[Path], object]]
    tell: Tell
    _built: dict[str, Path] = field(default_factory=dict)

    def keys(self, parameters: set[str]) -> dict[str, str]:
        """Build what these parameters want, if it is ours to build, and return the keys."""
        return {name: self.key(name) for name in FILES if name in parameters}

    def key(self, parameter: str) -> str:
        """Build one and return its key."""
        file = self._file(parameter)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:20]
        return f"code/{file.stem}-{digest}{file.suffix}"

    def upload(self, parameter: str, clients: Clients, bucket: str) -> None:
        """Put it into the bucket, unless it is there."""
        file, key = self._file(parameter), self.key(parameter)
        if is_there(clients, bucket, key):
            return
        size, sent = file.stat().st_size, 0

        def more(number: int) -> None:
            nonlocal sent
            sent += number
            self.tell.now(f"uploading {key}: {sent / 1e6:,.0f} of {size / 1e6:,.0f} MB")

        with answering(f"uploading {key} to {bucket}"):
            try:
                clients("s3").upload_file(
                    str(file), bucket, key, ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Callback=more
                )
            except S3UploadFailedError as error:
                raise Unavailable(f"{error}. Next: the same command again") from None

    def _file(self, parameter: str) -> Path:
        if parameter not in self._built:
            if parameter not in self.builders:
                raise Refused(f"nothing here builds {FILES[parameter]}, which the template's {parameter} wants")
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / FILES[parameter]
            self.tell.now(f"building {file.name}")
            self.builders[parameter](file)
            self._built[parameter] = file
        return self._built[parameter]


def put(clients: Clients, bucket: str, key: str, content: bytes) -> None:
    """Put an object whose key says its content into a bucket, unless it is there."""
    if not is_there(clients, bucket, key):
        with answering(f"uploading {key} to {bucket}"):
            clients("s3").put_object(Bucket=bucket, Key=key, Body=content, ChecksumAlgorithm="SHA256")


def is_there(clients: Clients, bucket: str, key: str) -> bool:
    """Say whether a bucket has an object."""
    with answering(f"looking for s3://{bucket}/{key}"):
        try:
            clients("s3").head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if code(error) not in ("404", "NoSuchKey", "NotFound"):
                raise
            return False
    return True
