"""One of several server processes. Its settings come through its standard input, whose end is that of its parent."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from graft.tasks.common.core.errors import GraftError
from graft.tasks.environment import prepare_process

from .settings import Settings


def main() -> int:
    prepare_process()
    settings = Settings.from_json(sys.stdin.readline())
    from .process import bind, serve

    try:
        serve(settings, bind(settings.host, settings.port, shared=True), _end_with_parent)
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _end_with_parent(end: Callable[[], None]) -> None:
    def wait() -> None:
        sys.stdin.read()
        end()

    threading.Thread(target=wait, name="parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
