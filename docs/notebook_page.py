"""The example notebook as Markdown: the part between the marks of docs/how-to/notebook.md.

After a change of docs/how-to/notebook.ipynb, execute it in a project of the sample images:

jupyter execute --inplace docs/how-to/notebook.ipynb     with the folder of the project as the current one
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parent / "how-to" / "notebook.ipynb"

Cell = dict[str, Any]


def cells(notebook: Path = NOTEBOOK) -> list[Cell]:
    found: list[Cell] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return found


def page_lines(notebook: Path = NOTEBOOK) -> Iterator[str]:
    """Text as it is, code in fences, and what each cell has shown: as HTML if it has that, otherwise as text."""
    for cell in cells(notebook):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield f"{source}\n"
        else:
            yield f"```python\n{source}\n```\n"
            for output in cell["outputs"]:
                yield f"{shown(output)}\n"


def shown(output: dict[str, Any]) -> str:
    """One output of a cell. HTML is put on one line: an empty line would end it for Markdown."""
    data = output.get("data", {})
    if "text/html" in data:
        return " ".join("".join(data["text/html"]).split())
    text = output["text"] if output["output_type"] == "stream" else data["text/plain"]
    return f"```text\n{''.join(text).rstrip()}\n```"
