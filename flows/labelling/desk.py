"""What the label page asks for, and what becomes of the answers: each is on the disk before the next image shows.

Everything else is in memory, and made again from data/labels.csv when the server starts: a server that is killed loses
no answer. Several people work at once: an image is lent to one of them at a time.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graft.tasks.preprocess.label_history import UNDO, UNSURE, Answer, append_answers, now

from .queues import QUEUES, Item

LEASE = 120.0
"""Seconds for which an image belongs to the person that it was shown to last."""


@dataclass
class _Person:
    """What a person has done.

    Attributes:
        given: the images answered, the last one last, without those that were taken back.
        skipped: those that are not to be shown to this person again.
    """

    given: list[str] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)


class Desk:
    """Args:
    file: data/labels.csv.
    items: the images to ask about, by queue in their order.
    label_of: image id -> its label now, before the answers of this server.
    known: the answers that count as given already: an image with one is not asked about again.
    twice: the share of images that two people are asked about, to measure how well they agree.
    """

    def __init__(
        self,
        file: Path,
        items: Sequence[Item],
        label_of: Callable[[str], str],
        known: Sequence[Answer],
        twice: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._label_of, self._twice, self._clock = file, label_of, twice, clock
        self._lock = threading.RLock()
        self._items: dict[str, dict[str, Item]] = {queue: {} for queue in QUEUES}
        self._people: dict[str, _Person] = defaultdict(_Person)
        self._lent: dict[str, tuple[str, float]] = {}
        self._who: dict[str, dict[str, Answer]] = defaultdict(dict)
        self.add(items)
        for answer in known:
            self._count(answer)

    def add(self, items: Sequence[Item]) -> None:
        """Puts more images at the end of their queues."""
        with self._lock:
            for item in items:
                self._items[item.queue].setdefault(item.image_id, item)

    def left(self) -> dict[str, int]:
        """Queue -> number of images that still need an answer."""
        with self._lock:
            return {queue: sum(not self._done(one) for one in items) for queue, items in self._items.items()}

    def next(self, queue: str, who: str, count: int = 1) -> list[Item]:
        """The next images of a queue for a person, who has them to himself for `LEASE` seconds."""
        return self.of_guess(queue, "", who, count)

    def answer(self, image_id: str, label: str, who: str, why: str) -> bool:
        """Writes an answer; False if the person has given just this one already (a request that was sent twice).

        Raises:
            DataError: it cannot be written as a row.
            OSError: the disk does not take it.
        """
        with self._lock:
            given = self._who[image_id].get(who)
            if given is not None and given.label == label:
                return False
            answer = Answer(image_id, label, who, now(), why, self.label(image_id))
            append_answers(self._file, [answer])
            self._count(answer)
            self._lent.pop(image_id, None)
            return True

    def undo(self, who: str) -> str:
        """Takes back the person's last answer; returns its image, empty if there is none."""
        with self._lock:
            if not self._people[who].given:
                return ""
            image_id = self._people[who].given[-1]
            answer = Answer(image_id, UNDO, who, now(), "", self.label(image_id))
            append_answers(self._file, [answer])
            self._count(answer)
            self._lent[image_id] = (who, self._clock() + LEASE)
            return image_id

    def of_guess(self, queue: str, guess: str, who: str, count: int) -> list[Item]:
        """Images of a queue that the model takes for one class (empty for any), lent to the person together."""
        with self._lock:
            found: list[Item] = []
            for image_id, item in self._items[queue].items():
                if len(found) == count:
                    break
                if (not guess or item.guess == guess) and self._open_for(image_id, who):
                    self._lent[image_id] = (who, self._clock() + LEASE)
                    found.append(item)
            return found

    def guesses(self, queue: str) -> dict[str, int]:
        """What the model takes the images of a queue for that still need an answer -> how many."""
        with self._lock:
            of = Counter(item.guess for one, item in self._items[queue].items() if not self._done(one) and item.guess)
            return dict(of.most_common())

    def skip(self, image_id: str, who: str) -> None:
        """Shows the image to others instead."""
        with self._lock:
            self._people[who].skipped.add(image_id)
            self._lent.pop(image_id, None)

    def item(self, image_id: str) -> Item | None:
        return next((items[image_id] for items in self._items.values() if image_id in items), None)

    def label(self, image_id: str) -> str:
        """The label of an image with the answers of this server."""
        decided = [one for one in self._who[image_id].values() if one.label != UNSURE]
        last = max(decided, key=lambda one: one.when, default=None)
        if last is None:
            return self._label_of(image_id)
        return "" if last.label.startswith("!") else last.label

    def progress(self) -> dict[str, Any]:
        """Answers by person, and how well two people who were asked about the same image agree."""
        with self._lock:
            people = Counter(who for given in self._who.values() for who in given)
            return {"people": dict(people.most_common()), "agreement": agreement(self._who.values())}

    def _count(self, answer: Answer) -> None:
        person = self._people[answer.who]
        person.given = [one for one in person.given if one != answer.image_id]
        if answer.label == UNDO:
            self._who[answer.image_id].pop(answer.who, None)
        else:
            self._who[answer.image_id][answer.who] = answer
            person.given.append(answer.image_id)

    def _open_for(self, image_id: str, who: str) -> bool:
        if self._done(image_id) or who in self._who[image_id] or image_id in self._people[who].skipped:
            return False
        holder, until = self._lent.get(image_id, ("", 0.0))
        return holder in ("", who) or until < self._clock()

    def _done(self, image_id: str) -> bool:
        return len(self._who.get(image_id, ())) >= (2 if self._is_asked_twice(image_id) else 1)

    def _is_asked_twice(self, image_id: str) -> bool:
        digest = hashlib.blake2b(f"twice {image_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64 < self._twice


def agreement(answers: Any) -> dict[str, float | int]:
    """Of the images about which two people or more decided: how many there are, the share of pairs of answers that are
    equal, and Cohen's kappa of them (Cohen 1960, for any number of people by Fleiss' pairs); none with fewer than 2."""
    pairs: list[tuple[str, str]] = []
    for given in answers:
        labels = [answer.label for answer in given.values() if answer.label != UNSURE]
        pairs += [(one, other) for place, one in enumerate(labels) for other in labels[place + 1 :]]
    if not pairs:
        return {"images": 0}
    equal = sum(one == other for one, other in pairs) / len(pairs)
    shares = Counter(label for pair in pairs for label in pair)
    by_chance = sum((count / (2 * len(pairs))) ** 2 for count in shares.values())
    kappa = (equal - by_chance) / (1 - by_chance) if by_chance < 1 else 1.0
    images = sum(sum(answer.label != UNSURE for answer in given.values()) > 1 for given in answers)
    return {"images": images, "equal": round(equal, 4), "kappa": round(kappa, 4)}
