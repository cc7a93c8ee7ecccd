"""Every way to publish, in one place."""

from generator.http import HttpPublisher
from generator.kinesis import KinesisPublisher
from generator.lines import FilePublisher
from generator.pace import paced
from generator.records import Published, Publisher, Record

__all__ = ["FilePublisher", "HttpPublisher", "KinesisPublisher", "Published", "Publisher", "Record", "paced"]
