"""The event is described once, and everything else follows from it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from clickstream.schema import flink_columns
from tests.events import TABLES

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"

ALLOWED = {
    "clickstream": {"clickstream"},
    "enrichment": {"clickstream", "enrichment"},
    "connectors": {"clickstream", "enrichment", "connectors"},
    "generator": {"clickstream", "connectors", "generator"},
    "flink_app": {"clickstream", "enrichment", "connectors", "flink_app"},
    "deploy": {"clickstream", "deploy"},
    "deploy/lambdas": {"clickstream", "connectors", "deploy"},  # they run what the packages do
}


def test_adding_a_field_shows_up_here() -> None:
    written = "\n\n".join(f"{name}\n  {flink_columns(schema)}" for name, schema in TABLES.items()) + "\n"

    assert written == (GOLDEN / "tables.txt").read_text(), f"if this is what you want, write it to {GOLDEN}/tables.txt"


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    ours = {*ALLOWED, "cli", "tests"}
    others = [ROOT / other for other in ALLOWED if other.startswith(f"{folder}/")]
    for file in (ROOT / folder).rglob("*.py"):
        if any(file.is_relative_to(other) for other in others):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                package = name.partition(".")[0]
                assert package not in ours - ALLOWED[folder], f"{file.relative_to(ROOT)} imports {name}"


def test_the_core_needs_no_flink_no_aws_and_no_redis() -> None:
    program = (
        "import sys, clickstream.batch, clickstream.settings, enrichment.process, enrichment.answers\n"
        "print(*{'pyflink', 'boto3', 'redis', 'apache_beam', 'pandas'} & sys.modules.keys())"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert loaded.stdout.strip() == ""


def test_a_command_loads_no_library_of_another() -> None:
    libraries = {"boto3", "duckdb", "pyarrow", "redis", "requests", "sqlalchemy"}
    program = f"import sys, cli.main\nprint(*{libraries} & sys.modules.keys())"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert loaded.stdout.strip() == ""
