"""Generates the parts of the documentation that follow from the code: commands, parameters, their schema, decisions.

python docs/generate.py            writes the pages
python docs/generate.py --check    writes nothing; names the pages that differ from the code, with exit code 1

A page is written by hand except for the part between its two `generated` marks.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import typer

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from docs import notebook_page, python_page  # noqa: E402
from docs.draw_rooms import PICTURE, draw  # noqa: E402
from graft.flows.cli.main import app  # noqa: E402
from graft.flows.project.template import COPIED, FOLDER, JOINED  # noqa: E402
from graft.flows.runtime.param_search import parameters  # noqa: E402
from graft.flows.runtime.params import SECTIONS, Params, json_schema  # noqa: E402
from graft.tasks.code import FILE, lock_text, locked_code  # noqa: E402

BEGIN, END = "<!-- generated:begin -->", "<!-- generated:end -->"
EVERYWHERE = {"project", "as_json"}
"""Options of nearly every command, which the page describes once."""
KINDS = {int: "NUMBER", float: "NUMBER", Path: "PATH", str: "TEXT"}
"""What an option takes, for usage lines."""

SCHEMA_LINE = "# yaml-language-server: $schema=docs/params.schema.json\n"
DEVELOPMENT = "# what the development of Graft leaves\n"
"""The line of .gitignore after which nothing concerns other projects."""


def pages() -> dict[Path, str]:
    """Every generated page and the text that it should have."""
    return {
        DOCS / "reference" / "cli.md": between_marks(DOCS / "reference" / "cli.md", "\n".join(command_lines())),
        DOCS / "reference" / "params.md": between_marks(DOCS / "reference" / "params.md", "\n".join(param_lines())),
        DOCS / "adr" / "index.md": between_marks(DOCS / "adr" / "index.md", "\n".join(decision_lines(DOCS / "adr"))),
        DOCS / "how-to" / "notebook.md": between_marks(
            DOCS / "how-to" / "notebook.md", "\n".join(notebook_page.page_lines())
        ),
        DOCS / "reference" / "python.md": between_marks(
            DOCS / "reference" / "python.md", "\n".join(python_page.page_lines())
        ),
        PICTURE: draw(),
        DOCS.parent / FILE: lock_text(locked_code()),
        DOCS / "params.schema.json": json.dumps(json_schema(), indent=2) + "\n",
        **templates(),
    }


def templates() -> dict[Path, str]:
    """The files of a new project: this repository's own, without what concerns only its development."""
    names = {name: file for name, file in {**COPIED, **JOINED}.items() if not name.startswith(".github/")}
    texts = {name: (DOCS.parent / name).read_text(encoding="utf-8") for name in names}
    texts["params.yaml"] = texts["params.yaml"].removeprefix(SCHEMA_LINE)
    texts[".gitignore"] = texts[".gitignore"].partition(DEVELOPMENT)[0]
    return {FOLDER / names[name]: text for name, text in texts.items()}


def between_marks(page: Path, generated: str) -> str:
    """The text of `page` with `generated` between its marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{page} has no part between {BEGIN} and {END}: add both marks")
    return f"{before}{BEGIN}\n\n{generated.strip()}\n\n{END}{after}"


# ---------------------------------------------------------------- commands


def command_lines() -> Iterator[str]:
    for name, command in commands(typer.main.get_command(app), "graft"):
        yield f"## `{name}`\n"
        yield f"{sentence(command.help)}\n"
        yield f"```\n{usage(name, command)}\n```\n"
        yield f"```\n{examples(command)}\n```\n"
        yield from table(("argument", "", "meaning"), (argument_row(p) for p in command.params if is_argument(p)))
        options = [option_row(p) for p in command.params if not is_argument(p) and p.name not in EVERYWHERE]
        yield from option_table(options)
        common = [flag for flag in ("--project", "--json") if any(flag in p.opts for p in command.params)]
        if common:
            yield f"Also takes {' and '.join(f'`{flag}`' for flag in common)}.\n"


def option_table(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    """The options of a command; without the column of defaults if there are none."""
    if any(default for _, default, _ in rows):
        return table(("option", "default", "meaning"), rows)
    return table(("option", "meaning"), ((name, meaning) for name, _, meaning in rows))


def commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command below `group` with its full name, in alphabetical order."""
    context = typer.Context(group)
    for word in sorted(group.list_commands(context)):
        command = group.get_command(context, word)
        full = f"{name} {word}"
        if hasattr(command, "list_commands"):
            yield from commands(command, full)
        else:
            yield full, command


def examples(command: Any) -> str:
    """The examples at the end of a command's help."""
    return textwrap.dedent("\n".join(command.epilog.splitlines()[2:]))


def is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def usage(name: str, command: Any) -> str:
    words = [metavar(param) for param in command.params if is_argument(param)]
    if command.context_settings.get("allow_extra_args"):
        words.append("[WORD]...")
    return " ".join([name, *(["[OPTIONS]"] if any(not is_argument(p) for p in command.params) else []), *words])


def metavar(param: Any) -> str:
    if param.metavar:
        return str(param.metavar)
    return str(param.name.upper()) if param.required else f"[{param.name.upper()}]"


def argument_row(param: Any) -> tuple[str, str, str]:
    default = "required" if param.required else f"default `{param.default}`" if param.default else "optional"
    return f"`{metavar(param)}`", default, sentence(param.help)


def option_row(param: Any) -> tuple[str, str, str]:
    names = sorted(param.opts, key=len)
    kind = "" if param.is_flag else f" {KINDS.get(value_type(param), 'TEXT')}"
    default = "required" if param.required else "" if param.is_flag or param.default is None else f"`{param.default}`"
    return ", ".join(f"`{name}`" for name in names[:-1]) + f"`{names[-1]}{kind}`", default, sentence(param.help)


def value_type(param: Any) -> Any:
    """The type of one value, without `None` beside it."""
    annotation = param.type_descriptor.annotation
    return next((part for part in get_args(annotation) if part is not type(None)), annotation)


# ---------------------------------------------------------------- parameters


def param_lines() -> Iterator[str]:
    definitions = Params.model_json_schema(by_alias=True)["$defs"]
    every = list(parameters())
    for name, model in SECTIONS.items():
        yield f"## `{name}`\n"
        yield f"{sentence(definitions[model.__name__]['description'])}\n"
        own = (one for one in every if one.name.startswith(f"{name}."))
        rows = ((f"`{one.name}`", f"`{one.default}`", one.allowed, sentence(one.meaning)) for one in own)
        yield from table(("parameter", "default", "allowed", "meaning"), rows)


# ---------------------------------------------------------------- decisions


def decision_lines(folder: Path) -> Iterator[str]:
    """One line for each decision: its title, as a link."""
    for page in sorted(folder.glob("[0-9]*.md")):
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        number, _, words = title.partition(". ")
        yield f"- [{number}. {words}]({page.name})"


# ---------------------------------------------------------------- Markdown


def sentence(text: str | None) -> str:
    """One paragraph on one line, ready for a cell of a table."""
    words = " ".join((text or "").split()).replace("|", "\\|")
    outside_code = (part if n % 2 else part.replace("<", "&lt;") for n, part in enumerate(words.split("`")))
    return "`".join(outside_code)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if lines:
        names = list(head)
        yield f"| {' | '.join(names)} |"
        yield f"| {' | '.join('---' for _ in names)} |"
        yield from lines
        yield ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the generated pages of docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing, name the pages that are stale")
    check = parser.parse_args().check
    stale = {
        page: text for page, text in pages().items() if not page.is_file() or page.read_text(encoding="utf-8") != text
    }
    for page, text in stale.items():
        print(f"{'stale' if check else 'written'}: {page.relative_to(DOCS.parent)}")
        if not check:
            page.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
