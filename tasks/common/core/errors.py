"""Errors for the user: what was wrong, the value got, what is allowed, what to do next."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class GraftError(Exception):
    """A user error; the command line prints it without a traceback and exits with 2.

    Args:
        what: the file or key, and what is wrong with it.
        got: the value found, if there is one.
        allowed: which values are allowed.
        todo: what to do next.
    """

    def __init__(self, what: str, *, got: object = None, allowed: str = "", todo: str = "") -> None:
        self.what, self.got, self.allowed, self.todo = what, got, allowed, todo
        lines = [what]
        if got is not None:
            lines.append(f"  got:     {got}")
        if allowed:
            lines.append(f"  allowed: {allowed}")
        if todo:
            lines.append(f"  do:      {todo}")
        super().__init__("\n".join(lines))


class ParamsError(GraftError):
    """A key or a value in params.yaml that is not allowed."""


class DataError(GraftError):
    """Images or tables that Graft cannot work with."""


class WeightsError(GraftError):
    """Pre-trained weights that are missing, damaged or belong to another network."""


class TransientError(GraftError):
    """Input or output that may succeed when it is tried again: a server or a disk did not answer."""


class WeightsUnreachable(WeightsError, TransientError):
    """The place that has the weights does not answer."""


_PASSING = frozenset(
    {
        errno.EIO,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ESTALE,
        errno.EAGAIN,
        errno.EBUSY,
    }
)


def may_pass(error: BaseException | None) -> bool:
    """Whether an error or its cause may disappear on a retry, unlike a full disk or a missing file."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, TransientError) or (isinstance(error, OSError) and error.errno in _PASSING):
            return True
        seen.add(id(error))
        error = error.__cause__
    return False


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like `name`, as a question to append to a message; empty when nothing is alike. Upper and
    lower case count as alike; of names that differ in nothing else, the one in the case of `name` is meant."""
    spellings: dict[str, list[str]] = {}
    for other in known:
        spellings.setdefault(other.casefold(), []).append(other)
    found = difflib.get_close_matches(name.casefold(), spellings, n=1, cutoff=0.5)
    if not found:
        return ""
    (meant,) = difflib.get_close_matches(name, spellings[found[0]], n=1, cutoff=0.0)
    return f"did you mean `{meant}`?"
