"""Runs a Python module as a server that ends with the process that started it, even if that process is killed:

    python -P child_server.py PARENT MODULE WORD...

PARENT is the number of the process to end with. Uses the standard library alone, so that it starts at once.
"""

import os
import runpy
import signal
import sys
import threading
import time

EVERY, GRACE = 0.5, 10.0
"""Seconds between two checks of the parent, and between asking the server to end and killing it."""


def main() -> None:
    parent, module, *words = sys.argv[1:]
    threading.Thread(target=_end_with, args=(int(parent),), name="parent", daemon=True).start()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with(parent: int) -> None:
    """Ends the server's whole process group, which it leads."""
    while os.getppid() == parent:  # an orphan gets another parent
        time.sleep(EVERY)
    os.killpg(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
