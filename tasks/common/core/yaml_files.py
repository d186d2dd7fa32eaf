"""YAML files that people, git and DVC write, read as DVC reads them: YAML 1.2, in which `off` is a word."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from .errors import GraftError

CONFLICT = re.compile(r"^(?:<{7}|>{7})(?: |$)", re.MULTILINE)
"""What git writes around the two sides of a merge conflict."""

RESTORE = "restore it: `git checkout HEAD -- {name}`"

REPAIRS = {
    "dvc.lock": f"{RESTORE}; if no commit has it, delete it, and every stage runs again",
    "params.yaml": "fix the line that it names",
}
"""File name -> how to repair the file; `RESTORE` for any other."""

MERGES = {
    "dvc.lock": "take one side, `git checkout --theirs -- dvc.lock` or `--ours`, then `dvc repro` brings it up to date",
}
"""File name -> how to resolve a merge conflict in it."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2, and no key twice; thirty times as fast as the reader that DVC uses."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key `{key.value}` is there twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return dict(super().construct_mapping(node, deep=deep))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    """`010` is ten, which YAML 1.1 took for eight."""
    digits = node.value.replace("_", "")
    prefixed = digits.lstrip("+-")[:2] in ("0b", "0o", "0x")
    return int(digits, 0 if prefixed else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?0b[01_]+|[-+]?0o?[0-7_]+|[-+]?[0-9][0-9_]*|[-+]?0x[0-9a-fA-F_]+", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_yaml(path: Path, kind: type[GraftError] = GraftError) -> Any:
    """The content of a YAML file.

    Args:
        kind: of the error.

    Raises:
        FileNotFoundError: there is no such file.
        GraftError: it cannot be read; the message says how to repair it.
    """
    return parse_yaml(path.read_bytes(), path, kind)


def parse_yaml(content: bytes, path: Path, kind: type[GraftError] = GraftError) -> Any:
    """`read_yaml` of content that was read already."""
    repair = REPAIRS.get(path.name, RESTORE).format(name=path.name)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise kind(f"{path} is not a text file", got=repr(content[:20]), allowed="YAML in UTF-8", todo=repair) from None
    if CONFLICT.search(text):
        todo = MERGES.get(path.name, "keep one side of each, and remove the lines <<<<<<<, ======= and >>>>>>>")
        raise kind(f"{path} has an unresolved merge conflict", got=_first_conflict(text), todo=todo)
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise kind(f"{path} is not YAML", got=_reason(error), todo=repair) from None


def read_mapping(path: Path, kind: type[GraftError] = GraftError) -> dict[str, Any]:
    """The content of a YAML file that must hold keys and values, as all of DVC's do.

    Raises:
        FileNotFoundError: there is no such file.
        GraftError: it cannot be read, or is empty, or holds something else.
    """
    content = read_yaml(path, kind)
    if not isinstance(content, dict):
        got = "an empty file" if content is None else type(content).__name__
        repair = REPAIRS.get(path.name, RESTORE).format(name=path.name)
        raise kind(f"{path} has no content that Graft can use", got=got, allowed="keys and values", todo=repair)
    return content


def _first_conflict(text: str) -> str:
    found = CONFLICT.search(text)
    assert found is not None, "the caller has found one"
    number = text.count("\n", 0, found.start()) + 1
    return f"line {number}: {text.splitlines()[number - 1][:80]}"


def _reason(error: yaml.YAMLError) -> str:
    """What is wrong, and in which line, on one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())[:200]
