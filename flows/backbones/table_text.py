"""What `graft models` prints: tables that fit the terminal, and Markdown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from graft.tasks.common.backbones import licences
from graft.tasks.features.sight import LARGE, USUAL
from graft.tasks.finetune.params import FinetuneParams

from .table import Row

CAPTION = (
    "MB, top-1, top-5, params, depth: Keras table. timm top-1: timm, for these weights.",
    "Other networks' params: without the classifier; input: of timm's tests (and of pre-training).",
    "licence: as timm states it; NC: it excludes commercial use.",
    "graft models NAME shows one network in detail; graft models WORD --all searches timm.",
)

PIPE = 100
"""The width of the output, in characters, without a terminal."""

LONGEST = 27
"""The widest column, in characters, if it states no other. Longer names wrap: of timm's names in the Keras table, only
one does."""


TRAINED = {"all": "all of these layers", "last_stage": "the last stage of these layers", "norm": "their norm layers"}
"""`finetune.layers` -> what it trains."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: may have two lines.
        show: the cell of a row.
        rank: on a narrow terminal, columns of a higher rank are left out first; None is shown only with --wide.
        longest: the widest that it may be, in characters; longer cells wrap.
    """

    title: str
    show: Callable[[Row], str]
    rank: int | None = None
    left: bool = False
    longest: int = LONGEST

    def width(self, rows: Sequence[Row]) -> int:
        cells = [*self.title.split("\n")] + [self.show(row) for row in rows]
        return min(max(map(len, cells)), self.longest)


def _plain(key: str, form: str = "{}") -> Callable[[Row], str]:
    return lambda row: "-" if row.get(key) is None else form.format(row[key])


def _input(row: Row) -> str:
    return _size(row["input"]) if row.get("input") else "-"


def _inputs(row: Row) -> str:
    """The size at which timm tests, and in brackets that of pre-training, if that is another."""
    return _input(row) + (f" ({_size(row['trained'])})" if row["trained"] != row["input"] else "")


def _size(sides: Sequence[int]) -> str:
    height, width = sides
    return str(height) if height == width else f"{height}x{width}"


def _body(row: Row) -> str:
    return "-" if row["body_parameters"] is None else f"{row['body_parameters'] / 1e6:.1f}"


def _licence(row: Row) -> str:
    return "-" if row["licence"] is None else f"{row['licence']} NC" if row["non_commercial"] else row["licence"]


def _parameters(row: Row) -> str:
    """In millions: the number of the Keras table, or timm's."""
    if row["parameters_millions"] is not None:
        return f"{row['parameters_millions']:.1f}"
    return "-" if row["parameters"] is None else f"{row['parameters'] / 1e6:.1f}"


def _rate(key: str) -> Callable[[Row], str]:
    return lambda row: "-" if row[key] is None else f"{row[key]:.0f}" if row[key] >= 10 else f"{row[key]:.1f}"


def _here(row: Row) -> str:
    return row["at_hand"].partition(":")[0] if row["at_hand"] else "no"


TABLE = (
    Column("network", lambda row: row["name"] or row["timm"], 0, left=True),
    Column("timm weights,\nfor frozen features", lambda row: row["timm"], 7, left=True),
    Column("MB", _plain("megabytes"), 2),
    Column("top-1", _plain("top1", "{:.1f}"), 1),
    Column("top-5", _plain("top5", "{:.1f}"), 9),
    Column("timm\ntop-1", _plain("timm_top1", "{:.1f}"), 8),
    Column("params\nM", _parameters, 2),
    Column("depth", _plain("depth"), 9),
    Column("feat-\nures", _plain("features"), 3),
    Column("input\npx", _input, 5),
    Column("here", _here, 4, left=True),
    Column("img/s", _rate("images_per_second"), 6),
    Column("timm\ntop-5", _plain("timm_top5", "{:.1f}")),
    Column("timm weights,\nto fine-tune", _plain("tuned"), left=True),
    Column("their\ntop-1", _plain("tuned_top1", "{:.1f}")),
    Column("timm's\nparameters", _plain("parameters", "{:,}")),
    Column("torch\nimg/s", _rate("torch_images_per_second")),
    Column("licence", _licence, left=True),
)
"""Of the networks of the Keras table."""

OTHERS = (
    Column("network", lambda row: row["name"] or row["timm"], 0, left=True),
    Column("params\nM", _body, 2),
    Column("feat-\nures", _plain("features"), 3),
    Column("input\npx", _inputs, 4),
    Column("licence", _licence, 1, left=True),
    Column("here", _here, 1, left=True),
    Column("img/s", _rate("images_per_second"), 6),
    Column("choose it for", _plain("when"), 5, left=True, longest=42),
    Column("timm weights,\nfor frozen features", lambda row: row["timm"], 7, left=True),
    Column("timm\ntop-1", _plain("timm_top1", "{:.1f}"), 8),
    Column("timm\ntop-5", _plain("timm_top5", "{:.1f}")),
    Column("pre-trained on", _plain("pretrained_on"), left=True),
    Column("timm weights,\nto fine-tune", _plain("tuned"), left=True),
    Column("output", _plain("output"), left=True),
    Column("torch\nimg/s", _rate("torch_images_per_second"), None),
)
"""Of all other networks."""

FOUND = (
    Column("timm weights", lambda row: row["timm"], 0, left=True),
    Column("name", _plain("name"), 3, left=True),
    Column("input\npx", _input, 1),
    Column("labels", _plain("labels"), 2),
    Column("here", _here, 1, left=True),
    Column("licence", _licence, 2, left=True),
)


def groups(rows: Sequence[Row]) -> list[tuple[str, Sequence[Column], list[Row]]]:
    """(heading, columns, rows) of each group, in the order in which the rows name them."""
    names = dict.fromkeys(row["group"] for row in rows)
    return [
        (name, TABLE if name == "Keras table" else OTHERS, [row for row in rows if row["group"] == name])
        for name in names
    ]


def print_groups(rows: Sequence[Row], *, wide: bool = False) -> None:
    """Prints a table for each group, with a heading if there are several."""
    for number, (name, columns, members) in enumerate(found := groups(rows)):
        if len(found) > 1:
            print(("\n" if number else "") + name[0].upper() + name[1:])
        print_table(columns, members, wide=wide)


def markdown_groups(rows: Sequence[Row]) -> str:
    """A Markdown table for each group, with a heading if there are several."""
    found = groups(rows)
    heading = "### {}\n\n" if len(found) > 1 else ""
    return "\n\n".join(
        heading.format(name[0].upper() + name[1:]) + markdown(columns, members) for name, columns, members in found
    )


def print_table(columns: Sequence[Column], rows: Sequence[Row], *, wide: bool = False) -> None:
    """Prints as many columns as fit, by rank; with `wide` all of them, however long the lines."""
    room = _room()
    shown = list(columns) if wide else fitting(columns, rows, room)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for column in shown:
        table.add_column(
            column.title,
            justify="left" if column.left else "right",
            overflow="fold",
            no_wrap=wide,
            width=None if wide else column.width(rows),
        )
    for row in rows:
        table.add_row(*(escape(column.show(row)) for column in shown))
    Console(width=10_000 if wide else room).print(table, crop=False)


def fitting(columns: Sequence[Column], rows: Sequence[Row], room: int) -> list[Column]:
    """The columns that fit into `room` characters, in their order; empty columns are left out."""
    left, chosen = room + 1, set[int]()
    ranked = [(column.rank, place) for place, column in enumerate(columns) if column.rank is not None]
    for rank, place in sorted(ranked):
        column = columns[place]
        needed = column.width(rows) + 1
        filled = any(column.show(row) != "-" for row in rows)
        if filled and (needed <= left or rank == 0):
            chosen.add(place)
            left -= needed
    return [column for place, column in enumerate(columns) if place in chosen]


def _room() -> int:
    return Console().width if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE


def markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A Markdown table of all columns that are not empty."""
    filled = [column for column in columns if any(column.show(row) not in ("-", "no") for row in rows)]
    lines = ["| " + " | ".join(column.title.replace("-\n", "").replace("\n", " ") for column in filled) + " |"]
    lines.append("| " + " | ".join("---" if column.left else "---:" for column in filled) + " |")
    lines += ["| " + " | ".join(column.show(row).replace("|", "\\|") for column in filled) + " |" for row in rows]
    return "\n".join(lines)


def print_network(found: Row) -> None:
    """Prints one network in detail."""
    console = Console(width=_room(), highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in facts_lines(found):
        table.add_row(key, escape(value))
    console.print(table)
    if "stages" not in found:
        return
    console.print()
    console.print(_stage_table(found))
    console.print()
    for line in found["params"]:
        console.print(escape(line), soft_wrap=True)


def facts_lines(found: Row) -> list[tuple[str, str]]:
    """What is known about a network, as (name, value)."""
    lines = [("network", found["name"] or found["timm"])]
    if found["megabytes"]:
        lines.append(
            (
                "Keras' table",
                f"{found['megabytes']} MB, top-1 {found['top1']} %, top-5 {found['top5']} %, "
                f"{found['parameters_millions']} M parameters, depth {found['depth']}",
            )
        )
    if found["parameters"] is None:
        return [*lines, ("timm", "has no such network")]
    weights = found["timm"] if "." in found["timm"] else f"{found['timm']}, tag {found['tag'] or 'none'}"
    lines.append(("timm", weights + _accuracy(found["timm_top1"], found["timm_top5"])))
    if found["when"]:
        lines += [("pre-trained on", found["pretrained_on"]), ("choose it for", found["when"])]
    if found["tuned"] and found["tuned"] != found["timm"]:
        lines.append(("to fine-tune", found["tuned"] + _accuracy(found["tuned_top1"], found["tuned_top5"])))
    if "keras_file" in found:
        lines.append(("Keras' weights", f"{found['keras_file']}; without its classifier {found['keras_notop_file']}"))
    lines.append(("licence", licences.named(found["licence"])))
    lines.append(("weights here", found["at_hand"] or "no"))
    if found["images_per_second"]:
        lines.append(
            (
                "images/s here",
                f"{found['images_per_second']} with OpenVINO ({found['precision']}), "
                f"{found['torch_images_per_second']} with torch (f32)",
            )
        )
    if "crop" in found:
        lines += _geometry(found) + _use(found)
    return lines


def _accuracy(top1: float | None, top5: float | None) -> str:
    return "" if top1 is None else f" (top-1 {top1:.1f} %, top-5 {top5:.1f} %, as timm publishes)"


def _geometry(found: Row) -> list[tuple[str, str]]:
    numbers = [", ".join(f"{value:.3g}" for value in found[key]) for key in ("mean", "std")]
    return [
        ("input", _sizes(found)),
        ("crop", f"{found['interpolation']}, keeps {found['crop']:.1%} of the short side (see `features.crop`)"),
        ("normalisation", f"mean {numbers[0]}; std {numbers[1]}"),
    ]


def _sizes(found: Row) -> str:
    """The size of the input, that of pre-training if it is another, and the cost of a large one."""
    height, width = found["input"]
    text = f"{width} x {height} pixels"
    if found["trained"] != found["input"]:
        text += f", as timm tests it (pre-training: {found['trained'][1]} x {found['trained'][0]}, `image_size: train`)"
    if height * width > LARGE * LARGE:
        text += f"; {height * width / USUAL**2:.1f} times the pixels of {USUAL} x {USUAL}"
    return text


def _use(found: Row) -> list[tuple[str, str]]:
    """How the pipeline uses the parts of the network."""
    body = found["parameters"] - found["classifier_parameters"]
    default = FinetuneParams.model_fields["layers"].default
    replaced = ", ".join(f"{layer} ({' x '.join(map(str, shape))})" for layer, shape in found["classifier"].items())
    lines = [
        ("parameters", f"{found['parameters']:,} with its classifier"),
        ("features", f"{found['features']:,} (output: pre_logits)"),
        ("the head replaces", replaced or "nothing: these weights have no classifier"),
        ("stage features", f"all other layers are frozen: {body:,} parameters, and batch-norm statistics"),
        ("stage finetune", f"trains {TRAINED[str(default)]} and the head by default; see `finetune.layers`"),
    ]
    hidden = found["hidden"]
    if hidden and found["pooled"]:
        lines[2:2] = [
            (
                "",
                f"{found['pooled']:,} (output: pooled), without {', '.join(hidden)} "
                f"({sum(hidden.values()):,} parameters)",
            )
        ]
    return lines


def _stage_table(found: Row) -> Table:
    table = Table("layers", box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right")
    for stage in found["stages"]:
        layers = stage["first"] if stage["first"] == stage["last"] else f"{stage['first']} to {stage['last']}"
        output = " x ".join(str(length) for length in stage["output"])
        table.add_row(escape(layers), output, f"{stage['parameters']:,}")
    if found["outside"]:
        table.add_row("outside these layers", "", f"{found['outside']:,}")
    return table
