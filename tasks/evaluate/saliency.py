"""What the network looks at in a few test images. N images, K classes, C channels, H x W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.backbones.spec import Spec
from ..common.candidates import Candidate
from ..common.core.errors import GraftError
from ..common.core.paths import Paths
from ..common.core.progress import say
from ..common.core.torch_threads import one_torch_thread
from ..common.data.feature_set import FeatureSet
from ..common.data.manifest import BETWEEN
from ..common.data.task import Task
from ..common.images.decode import Pixels
from ..common.images.transform import EvalTransform, load
from .predictions import Outcome

if TYPE_CHECKING:
    from .grad_cam import Looking

BATCH = 4
"""Images a step: always as many, since another number may make other rounding."""

NAME = 40
"""Letters of an image's classes above its picture, at most."""

FILE = "looks.png"


@dataclass(frozen=True)
class Look:
    """A test image, and where what was said of it comes from.

    Attributes:
        caption: what is true and what was said.
        wrong: whether it is one of the worst mistakes.
        pixels: as the network sees it.
        heat_HW: from 0 to 1.
    """

    caption: str
    wrong: bool
    pixels: Pixels
    heat_HW: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Looks:
    """The images looked at, the worst mistakes first; or why there are none."""

    task: Task
    seen: tuple[Look, ...]
    why_none: str = ""


def look(outcome: Outcome, candidate: Candidate, pack: FeatureSet, paths: Paths, most: int) -> Looks:
    """Looks at `most` of the test images, as `chosen` has it; what cannot be looked into is said and no error.

    Raises:
        DataError: an image is gone or damaged since it was checked.
    """
    from .grad_cam import look_into

    transform = Spec.from_dict(pack.fingerprint).transform
    size = (transform.channels, transform.height, transform.width)
    with one_torch_thread():
        try:
            looking = look_into(candidate.network(pack, paths), candidate.head, size)
        except GraftError as error:
            say(f"evaluate: the report shows no heat maps: {error}")
            return Looks(pack.task, (), error.what)
        table = chosen(outcome, pack.task, most)
        if table.empty:
            return Looks(pack.task, (), "nothing was found in any test image, and rightly so")
        pixels = [load(paths.raw / path, transform) for path in table["path"]]
        heats = _heats(looking, pixels, list(table["output"]), transform)
    seen = (Look(*each) for each in zip(table["caption"], table["wrong"], pixels, heats))
    return Looks(pack.task, tuple(seen))


def _heats(
    looking: Looking, pixels: Sequence[Pixels], outputs: list[int], transform: EvalTransform
) -> list[npt.NDArray[np.float32]]:
    import torch

    from .grad_cam import heat_maps

    mean, std = (255 * np.array(values, np.float32) for values in (transform.mean, transform.std))
    found: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(pixels), BATCH):
        x_BHWC = (np.stack(pixels[start : start + BATCH]) - mean) / std
        x_BCHW = torch.from_numpy(np.ascontiguousarray(x_BHWC.transpose(0, 3, 1, 2)))
        found += heat_maps(looking, x_BCHW, outputs[start : start + BATCH])
    return found


def chosen(outcome: Outcome, task: Task, most: int) -> pd.DataFrame:
    """The worst mistakes, as half of `most` images, then successes; more of the one where there are fewer of the other.

    The successes are the surest of each class in turn, first of the classes for which the mistakes were taken. Columns:
    `path`; `output`, whose heat map is asked for: of the class that was said, or of several the most probable; `wrong`;
    `caption`.
    """
    table = _JUDGED[task](outcome)
    table = table.assign(path=outcome.index["path"].to_numpy()[table.index])
    wrong = table[table["wrong"]].sort_values(["off", "path"], ascending=[False, True])
    right = table[~table["wrong"]].sort_values(["off", "path"])
    worst = wrong.head(most - min(most // 2, len(right)))
    order = {k: place for place, k in enumerate(dict.fromkeys([*worst["output"], *range(len(outcome.classes) or 1)]))}
    turn = right.assign(turn=right.groupby("output").cumcount(), place=right["output"].map(order))
    successes = turn.sort_values(["turn", "place"]).head(most - len(worst))
    return pd.concat([worst, successes])[["path", "output", "wrong", "caption"]].reset_index(drop=True)


def _one_class(outcome: Outcome) -> pd.DataFrame:
    """`output`, `wrong`, `caption`, and `off`: how far the answer is from what is true."""
    said_N, true_N = outcome.output.argmax(axis=1), np.asarray(outcome.target)
    p_N, wrong_N = outcome.output.max(axis=1), said_N != true_N
    names = [_short(name) for name in outcome.classes]
    captions = [f"true {names[y]}, said {names[k]} ({p:.2f})" for y, k, p in zip(true_N, said_N, p_N)]
    return pd.DataFrame(
        {"output": said_N, "wrong": wrong_N, "off": np.where(wrong_N, p_N, 1 - p_N), "caption": captions}
    )


def _several_classes(outcome: Outcome) -> pd.DataFrame:
    """The same of the most probable class; not of images in which nothing was found and rightly so, which have nothing
    to look for."""
    rows, said_N = np.arange(len(outcome.output)), outcome.output.argmax(axis=1)
    p_N, true_N = outcome.output[rows, said_N], outcome.target[rows, said_N] > 0
    wrong_N = (p_N >= 0.5) != true_N
    labels = [_short(label.replace(BETWEEN, ", ")) or "no class" for label in outcome.index["label"]]
    captions = [
        f"true {label}\n{'said' if p >= 0.5 else 'at most'} {_short(outcome.classes[k])} ({p:.2f})"
        for label, k, p in zip(labels, said_N, p_N)
    ]
    off_N = np.where(wrong_N, np.abs(p_N - true_N), 1 - p_N)
    table = pd.DataFrame({"output": said_N, "wrong": wrong_N, "off": off_N, "caption": captions})
    return table[wrong_N | (p_N >= 0.5)]


def _number(outcome: Outcome) -> pd.DataFrame:
    """The same of a number: the half with the larger errors are taken as wrong."""
    said_N, true_N = outcome.output[:, 0], np.asarray(outcome.target, np.float64)
    off_N = np.abs(said_N - true_N)
    wrong_N = np.argsort(np.argsort(off_N, kind="stable")) >= (len(off_N) + 1) // 2
    captions = [f"true {y:.4g}, said {said:.4g}" for y, said in zip(true_N, said_N)]
    return pd.DataFrame({"output": 0, "wrong": wrong_N, "off": off_N, "caption": captions})


_JUDGED = {"classification": _one_class, "multilabel": _several_classes, "regression": _number}


def _short(text: str) -> str:
    return text if len(text) <= NAME else f"{text[: NAME - 1]}…"


_SPEAKS = {
    "classification": "speaks for the class that was said",
    "multilabel": "speaks for the class that is named, which is the most probable one",
    "regression": "makes the number larger",
}


def looks_text(looks: Looks) -> str:
    """A section of the report."""
    title = "What the network looks at"
    if not looks.seen:
        return f"<h2>{title}</h2><p>There are no heat maps: {escape(looks.why_none)}.</p>"
    return (
        f"<h2>{title}</h2><p>On the left an image as the network sees it, on the right a heat map (Grad-CAM): the "
        f"brighter a place, the more it {_SPEAKS[looks.task]}. "
        "A model that is right for the wrong reason looks at the background, at a frame or at a caption. The map is as "
        f'coarse as the network&#8217;s last layer, and says where, not why.</p><img src="{FILE}" alt="{title}">'
    )
