"""Answers of the project's own MLflow store, kept until something they depend on changes.

To ask MLflow takes two seconds of loading. What it answers is in one file, and only a write changes that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from graft.tasks.common.core.files import read_json, write_shared_json
from graft.tasks.common.core.paths import Paths

from .store import own_store


def kept_answer(
    root: Path,
    question: str,
    depends_on: Iterable[Path],
    ask: Callable[[], Any],
    is_final: Callable[[Any], bool] = lambda _: True,
) -> Any:
    """What `ask` returns, for JSON; without asking if neither the store nor another file has changed since.

    Args:
        question: names the answer, together with its arguments. Only the last one of each first word is kept.
        depends_on: the other files that the answer depends on, whether they exist or not.
        is_final: whether an answer may be kept.
    """
    store = own_store(root)
    if store is None or not store.is_file():
        return ask()
    file = Paths(root).cache / "answers" / f"{question.split()[0]}.json"
    files = [store, store.with_name(f"{store.name}-wal"), *depends_on, *sorted(_code())]
    state = [question, *(_state(each) for each in files)]
    kept = _kept(file)
    if kept.get("state") != state:
        kept = {"state": state, "answer": ask()}
        if is_final(kept["answer"]):
            with suppress(OSError):  # a project that may only be read
                write_shared_json(file, kept)
    return kept["answer"]


def _kept(file: Path) -> dict[str, Any]:
    try:
        return dict(read_json(file))
    except (FileNotFoundError, ValueError):  # none yet, or cut short by a crash
        return {}


def _state(file: Path) -> list[int]:
    """What a write changes; empty for a file that does not exist."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return []
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _code() -> Iterable[Path]:
    """The modules that give the answers: another version of Graft may word them differently."""
    flows = Path(__file__).resolve().parent.parent
    return (file for room in ("lineage", "registry", "status") for file in (flows / room).glob("*.py"))
