"""data/labels.csv: the labels that people gave, one row an answer, versioned with the repository and only appended to.

An answer is about an image by its id, so no file is moved or renamed to relabel it. `label` is a label of the task, or
one of `SPECIAL`. Rows count in the order of `when`, not of the file: two branches that are merged line by line
(`merge=union` in .gitattributes) give the same labels in either order.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from ..common.core.errors import DataError
from ..common.core.words import listed

DISCARD, UNSURE, UNDO = "!discard", "!unsure", "!undo"
"""The image does not belong to the data; the person does not know; the person's last answer about it does not count."""

SPECIAL = (DISCARD, UNSURE, UNDO)

RANDOM = "random"
"""The reason of answers about images that were drawn at random."""

CHOSEN = ("typical", "margin")
"""The reasons of answers about images that were chosen to learn from: they are no fair sample, so they never test."""


@dataclass(frozen=True)
class Answer:
    """A row.

    Attributes:
        image_id: the md5 of the file.
        label: a label, or one of `SPECIAL`.
        who: the person.
        when: ISO 8601, in UTC.
        why: the reason for which the image was shown (`RANDOM`, one of `CHOSEN`, a queue), or a remark.
        replaced: the label that the image had before; empty for none.
    """

    image_id: str
    label: str
    who: str
    when: str
    why: str = ""
    replaced: str = ""


HEADER = [one.name for one in fields(Answer)]


@dataclass(frozen=True)
class Standing:
    """What the answers about one image amount to.

    Attributes:
        decided: the answer that counts, with a label or `DISCARD`; None if there is none.
        first: the first answer that counts; None if there is none.
        unsure: who did not know, since the last decision.
    """

    decided: Answer | None
    first: Answer | None
    unsure: tuple[str, ...]

    @property
    def discarded(self) -> bool:
        return self.decided is not None and self.decided.label == DISCARD

    @property
    def label(self) -> str | None:
        """The label that was given; None if none was, or the image is discarded."""
        return None if self.decided is None or self.discarded else self.decided.label

    @property
    def chosen(self) -> bool:
        """Whether the image came into the data because a strategy chose it."""
        return self.first is not None and not self.first.replaced and self.first.why in CHOSEN


def now() -> str:
    """The time of an answer that is given now: to the microsecond, so that an answer and its undo keep their order."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_answers(path: Path) -> list[Answer]:
    """All answers, in the order of time; none without the file. A row that a merge has doubled counts once.

    Raises:
        DataError: the file is not such a table; names the rows.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read", got=error, todo="restore it with `git checkout`") from error
    rows = [(number, row) for number, row in enumerate(csv.reader(io.StringIO(text, newline="")), 1) if row]
    if rows and rows[0][1] != HEADER:
        raise DataError(
            f"{path} has other columns", got=listed(rows[0][1]), allowed=",".join(HEADER), todo="correct its first line"
        )
    found = {tuple(row): number for number, row in reversed(rows) if row != HEADER}
    _refuse(path, [(number, fault) for row, number in found.items() if (fault := _fault(list(row)))])
    return sorted((Answer(*row) for row in found), key=_order)


def _order(answer: Answer) -> tuple[datetime, tuple[str, ...]]:
    return _moment(answer.when), astuple(answer)


def _moment(when: str) -> datetime:
    moment = datetime.fromisoformat(when)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _fault(row: list[str]) -> str:
    """What is wrong with a row; empty if nothing is."""
    if row[0].startswith(("<<<<<<<", "=======", ">>>>>>>")):
        return "a merge conflict: keep the lines of both sides, and remove the marks"
    if len(row) != len(HEADER):
        return f"{len(row)} cells"
    answer = Answer(*row)
    if len(answer.image_id) != 32 or not set(answer.image_id) <= set("0123456789abcdef"):
        return f"{answer.image_id or 'nothing'} is not the md5 of an image"
    if answer.label.startswith("!") and answer.label not in SPECIAL:
        return f"unknown label {answer.label}"
    try:
        _moment(answer.when)
    except ValueError:
        return f"{answer.when or 'nothing'} is not a time"
    return ""


def _refuse(path: Path, bad: Sequence[tuple[int, str]]) -> None:
    if bad:
        raise DataError(
            f"{path} has rows that cannot be used",
            got=listed([f"line {number}: {fault}" for number, fault in sorted(bad)]),
            allowed=f"{','.join(HEADER)}; label: a label, {', '.join(SPECIAL)}; when: ISO 8601",
            todo="correct or remove the rows",
        )


def append_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Adds rows. They are on the disk when this returns; a process that is killed leaves all of them or none.

    Raises:
        DataError: a row could not be read again.
    """
    rows = [list(astuple(answer)) for answer in answers]
    _refuse(path, [(number, fault) for number, row in enumerate(rows, 1) if (fault := _fault(row))])
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([" ".join(cell.split()) for cell in row] for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        content = text.getvalue().encode()
        os.write(file.fileno(), _before(path, file.seek(0, os.SEEK_END)) + content)  # one call: whole, or cut short
        os.fsync(file.fileno())


def _before(path: Path, size: int) -> bytes:
    """What must precede new rows: the header of an empty file, or the end of a line that has none."""
    if not size:
        return (",".join(HEADER) + "\n").encode()
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return b"" if file.read(1) == b"\n" else b"\n"


def standings(answers: Iterable[Answer]) -> dict[str, Standing]:
    """Image id -> what its answers (in the order of time) amount to."""
    by_image: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.label != UNDO:
            by_image[answer.image_id].append(answer)
            continue
        kept = by_image[answer.image_id]
        last = next((place for place in range(len(kept) - 1, -1, -1) if kept[place].who == answer.who), None)
        if last is not None:
            del kept[last]
    return {image_id: _standing(kept) for image_id, kept in by_image.items() if kept}


def _standing(kept: Sequence[Answer]) -> Standing:
    decisions = [answer for answer in kept if answer.label != UNSURE]
    since = kept[kept.index(decisions[-1]) :] if decisions else kept
    unsure = tuple(dict.fromkeys(answer.who for answer in since if answer.label == UNSURE))
    return Standing(decisions[-1] if decisions else None, decisions[0] if decisions else None, unsure)


def labels_of(found: Mapping[str, Standing]) -> dict[str, str]:
    """Image id -> the label that was given, of the images that have one."""
    return {image_id: standing.label for image_id, standing in found.items() if standing.label is not None}


def given_since(answers: Iterable[Answer], moment: str) -> list[Answer]:
    """The answers after a time (ISO 8601); all of them if it is empty."""
    return [answer for answer in answers if not moment or _moment(answer.when) > _moment(moment)]


def in_words(answers: Sequence[Answer]) -> str:
    """The number of answers, by kind and by person."""
    kinds = Counter(_kind(answer) for answer in answers)
    counted = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    people = Counter(answer.who or "nobody named" for answer in answers)
    images = len({answer.image_id for answer in answers})
    return (
        f"{len(answers):,} about {images:,} images ({counted}), by {listed([who for who, _ in people.most_common()])}"
    )


def _kind(answer: Answer) -> str:
    special = {DISCARD: "discarded", UNSURE: "not sure", UNDO: "taken back"}
    if answer.label in special:
        return special[answer.label]
    return "new" if not answer.replaced else "confirmed" if answer.replaced == answer.label else "changed"
