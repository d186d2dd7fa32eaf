"""Draws docs/images/rooms.svg: the rooms of the code from their docstrings, and the stages from dvc.yaml.

The order of the rooms is that of the import contracts in pyproject.toml, so that the picture cannot claim another.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import yaml

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
WIDTH, LINE, GAP = 980, 17, 8
NOTES = (
    "Each column may import those to its right. In flows/ and tasks/common/, a room may import the rooms below it.",
    "No stage imports another stage: they meet in the data (what it reads → what it writes).",
)
COLOURS = {"flows": "#e3edf9", "stages": "#e7f4e4", "common": "#fdf1dc", "studies": "#f4f4f4"}


def purpose(package: Path) -> str:
    """The first paragraph of a package's docstring, without Markdown."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].replace("`", "").split())


def layers(container: str) -> list[str]:
    """The rooms of a package from the top down, as the contract says."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    found = next(each for each in contracts["contracts"] if each.get("containers") == [container])
    return list(found["layers"])


def box(parent: ET.Element, at: tuple[float, float, float, float], title: str, text: str, colour: str) -> None:
    """A rounded box with a bold title and wrapped text; `at` is x, y, width and height in pixels."""
    x, y, width, height = at
    size = {"x": str(x), "y": str(y), "width": str(width), "height": str(height)}
    ET.SubElement(parent, "rect", size, rx="5", fill=colour, stroke="#8a8a8a")
    label = ET.SubElement(parent, "text", x=str(x + 10), y=str(y + LINE + 1))
    name = ET.SubElement(label, "tspan", {"font-weight": "bold"})
    name.text = title
    for number, line in enumerate(textwrap.wrap(text, int((width - 20) / 6.6))):
        part = ET.SubElement(label, "tspan", x=str(x + 10), y=str(y + LINE * (number + 2) + 1))
        part.text = line


def column(parent: ET.Element, x: float, y: float, width: float, rooms: list[tuple[str, str, str]]) -> float:
    """Boxes one below the other, from (title, text, colour); returns where they end."""
    for title, text, colour in rooms:
        height = LINE * (1 + len(textwrap.wrap(text, int((width - 20) / 6.6)))) + 12
        box(parent, (x, y, width, height), title, text, colour)
        y += height + GAP
    return y


def heading(parent: ET.Element, x: float, y: float, text: str) -> None:
    ET.SubElement(parent, "text", {"font-weight": "bold"}, x=str(x), y=str(y), fill="#333").text = text


def stages() -> list[tuple[str, str, str]]:
    """Each stage with the data that it reads and writes, and what no stage uses."""
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    rows = []
    for name, stage in pipeline.items():
        reads = [dep for dep in stage["deps"] if not dep.startswith(("tasks", "flows"))]
        outs = [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"]]
        writes = [out for out in outs if not out.startswith(("runs/", "metrics/", "plots/"))]
        rows.append((f"tasks/{name}", f"{', '.join(reads)} → {', '.join(writes)}", COLOURS["stages"]))
    others = [f"tasks/{name}" for name in ("studies", "export")]
    return [*rows, *((name, purpose(ROOT / name), COLOURS["studies"]) for name in others)]


def draw() -> str:
    """The picture as SVG."""
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "font-family": "sans-serif", "font-size": "13"})
    third = (WIDTH - 4 * 16) / 3
    places = [16 + n * (third + 16) for n in range(3)]
    columns = {
        "flows/: when, and what is recorded": [
            (f"flows/{room}", purpose(ROOT / "flows" / room), COLOURS["flows"]) for room in layers("graft.flows")
        ],
        "tasks/: what is done, one folder per stage": stages(),
        "tasks/common/: what stages share": [
            (f"common/{room}", purpose(ROOT / "tasks" / "common" / room), COLOURS["common"])
            for room in layers("graft.tasks.common")
            if (ROOT / "tasks" / "common" / room).is_dir()
        ],
    }
    ends = []
    for x, (title, rooms) in zip(places, columns.items(), strict=True):
        heading(svg, x, 26, title)
        ends.append(column(svg, x, 38, third, rooms))
    for number, note in enumerate(NOTES):
        heading(svg, 16, max(ends) + 14 + number * LINE, note)
    height = int(max(ends) + 13 + len(NOTES) * LINE)
    svg.set("viewBox", f"0 0 {WIDTH} {height}")
    background = ET.Element("rect", width=str(WIDTH), height=str(height), fill="white")
    svg.insert(0, background)
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
