"""How many threads a product of numpy's takes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


def one_thread_a_product() -> AbstractContextManager[Any]:
    """For the rows that threads share: with threads in each product too, a pass was four times slower; and on a busy
    machine a decomposition whose threads wait for each other was twenty times slower than by one.

    It is for the whole process, and must not be held where a generator yields: two that end in another order than they
    began would leave it behind.
    """
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    """Those that are loaded, numpy's among them; to look for them costs 5 ms."""
    return ThreadpoolController()
