"""All results of a search in MLflow, which gives them page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def all_pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """Results in order; the next page is fetched only when it is needed.

    Args:
        search: a method of `MlflowClient` that takes `page_token`.
    """
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return
