"""The range of grey images of more than 8 bits: one mapping to 8 bits for the whole data set."""

from __future__ import annotations

import pandas as pd

from ..common.core.errors import DataError
from ..common.core.progress import say
from ..common.images.deep import Range, nominal
from ..common.images.reading import Reading
from .params import PreprocessParams


def reading_of(images: pd.DataFrame, params: PreprocessParams) -> Reading:
    """How all later stages read the images.

    Args:
        images: `path`, `mode`, and `low` and `high`, which are null for images of 8 bits.

    Raises:
        DataError: some have integers and some floats, and no usual range holds both.
    """
    deep = images[images["low"].notna()]
    if params.range != "auto":
        _warn_of_clipped(deep, params.range)
        return Reading(params.channels, params.range, params.limits)
    return Reading(params.channels, _from_data(deep) if len(deep) else None, params.limits)


def _from_data(deep: pd.DataFrame) -> Range:
    kinds = dict(iter(deep.groupby(deep["mode"] == "F")))
    spans = {kind: nominal(images["low"].min(), images["high"].max(), not kind) for kind, images in kinds.items()}
    if len(set(spans.values())) > 1:
        raise DataError(
            "the data have grey images of integers and of floats, which no one range fits",
            got="; ".join(f"{_named(spans[kind])} as {images['path'].iloc[0]}" for kind, images in kinds.items()),
            allowed="one range for all images of more than 8 bits",
            todo="set `preprocess.range`, or convert the images to one kind",
        )
    (span,) = set(spans.values())
    say(
        f"preprocess: {len(deep):,} grey images have more than 8 bits, with values from {deep['low'].min():g} to "
        f"{deep['high'].max():g}; in all of them {_named(span)} become black and white, unless `preprocess.range` says "
        "otherwise"
    )
    return span


def _warn_of_clipped(deep: pd.DataFrame, span: Range) -> None:
    outside = deep[(deep["low"] < span[0]) | (deep["high"] > span[1])]
    if len(outside):
        say(
            f"preprocess: warning: {len(outside):,} of {len(deep):,} grey images of more than 8 bits have values "
            f"outside `preprocess.range` ({_named(span)}), which are clipped, such as {outside['path'].iloc[0]}"
        )


def _named(span: Range) -> str:
    return f"{span[0]:g} and {span[1]:g}"
