"""What the templates say about an event, written into them out of its one description: `python -m deploy.derived`.

A template marks the place with a pair of comments, which stay:

    Columns:
      # derived: columns enriched
      - {Name: timestamp, Type: timestamp}
      # derived end

The words after the colon name a block in `BLOCKS` and its arguments; its value is written as YAML at the depth of the
comment.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from deploy import front
from deploy.event_schema import batch_schema, event_schema
from deploy.glue_columns import glue_columns
from deploy.quicksight_columns import quicksight_columns, quicksight_tags

TEMPLATES: Final = Path(__file__).parent / "templates"

BLOCKS: Final[dict[str, Callable[..., Any]]] = {
    "columns": glue_columns,
    "event": event_schema,
    "events": batch_schema,
    "deployments": lambda: front.deployments((TEMPLATES / "front.yaml").read_text()),
    "deployment": lambda: front.deployment((TEMPLATES / "front.yaml").read_text()),
    "quicksight_columns": quicksight_columns,
    "quicksight_tags": quicksight_tags,
}

_BLOCK: Final = re.compile(r"^( *)# derived: (.+)\n(?:.*\n)*?\1# derived end$", re.MULTILINE)


def derived(template: str) -> str:
    """Return the template with all its derived blocks as they should be."""
    return _BLOCK.sub(_block, template)


def _block(found: re.Match[str]) -> str:
    indent, words = found.groups()
    name, *arguments = words.split()
    text = yaml.safe_dump(BLOCKS[name](*arguments), sort_keys=False, width=110, allow_unicode=True)
    lines = "".join(f"{indent}{line}\n" for line in text.splitlines())
    return f"{indent}# derived: {words}\n{lines}{indent}# derived end"


def main() -> None:
    """Write the derived blocks of all templates anew."""
    for file in sorted(TEMPLATES.glob("*.yaml")):
        file.write_text(derived(file.read_text()))


if __name__ == "__main__":
    main()
