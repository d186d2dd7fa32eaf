"""Names of metrics, parameters and tags as MLflow accepts them."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; None left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        elif value is not None:
            flat[name] = value
    return flat


def mlflow_name(name: str) -> str:
    """A name as MLflow accepts it: letters, digits and a few signs, and paths in their shortest form. Class names may
    hold anything.

    A name that had to be changed gets a few digits of its hash, or two names could become the same.
    """
    key = "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)[:240]
    if posixpath.normpath(key) != key or key.startswith(("/", "..")) or key == ".":
        key = key.replace("/", "_").replace("..", "__").removesuffix(".") or "_"
    return key if key == name else f"{key}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
