"""Whether a head can learn from the images that are left, and warnings about doubtful labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..common.core.errors import DataError
from ..common.core.progress import say
from ..common.core.words import listed
from ..common.data.manifest import SPLITS, by_class, classes, counts, task_of
from ..common.data.task import GOOD, Task
from ..common.data.units import units
from .class_names import doubtful_names

LARGE = 0.2
"""The share of a class, or of all images, from which on a group is named."""


def stop_if_nothing_to_learn(manifest: pd.DataFrame, raw: Path, task: Task) -> None:
    """Raises:
    DataError: the labels do not vary, a split has no image, or a class has no training image; for anomaly too few
        images are good.
    """
    _CHECKS[task](manifest, raw)
    if task == "anomaly":
        return
    named = task in ("classification", "multilabel")
    for split in SPLITS:
        if not (manifest["split"] == split).any():
            raise DataError(
                f"no image is left for the split {split}",
                got=f"{len(manifest)} images",
                allowed="at least three images (or three groups)" + (" of one class" if named else ""),
                todo="add images" + ("; if the labels are numbers, set `head.task: regression`" if named else ""),
            )
    if task == "reconstruction":
        return
    refuse_untrained([name for name, count in counts(manifest).items() if not count["train"]], str(raw))


def refuse_untrained(names: list[str], source: str) -> None:
    """A class that only validation and test images have can neither be learned nor predicted.

    Raises:
        DataError: there are such classes.
    """
    if names:
        raise DataError(
            f"{source}: classes without a training image",
            got=_some(names),
            allowed="at least one training image of each class",
            todo="move images of these classes to the split train, or remove the classes; Graft makes the splits "
            "itself for data that have none",
        )


def _stop_without_two_classes(manifest: pd.DataFrame, raw: Path) -> None:
    names = classes(manifest) if len(manifest) else []
    if len(names) < 2:
        raise DataError(
            f"{raw} holds images of fewer than two classes",
            got=", ".join(names) or "no image",
            allowed="at least two classes of at least three images",
            todo="check that each class has a folder, named after it",
        )


def _stop_without_a_class(manifest: pd.DataFrame, raw: Path) -> None:
    """A class that every image has, or none, teaches nothing."""
    found = counts(manifest) if len(manifest) else {}
    train = int((manifest["split"] == "train").sum())
    if all(count["train"] in (0, train) for count in found.values()):
        everywhere = [name for name, count in found.items() if count["train"]]
        raise DataError(
            f"{raw}: no class tells the training images apart",
            got=f"{train} images; all of them have: {listed(everywhere) or 'no class'}",
            allowed="at least one class that some images have and others do not",
            todo="check the labels in labels.csv",
        )


def _stop_without_two_numbers(manifest: pd.DataFrame, raw: Path) -> None:
    numbers = manifest.loc[manifest["split"] == "train", "label"].unique()
    if len(numbers) < 2:
        raise DataError(
            f"{raw}: all training images have the same number",
            got=", ".join(numbers) or "no image",
            allowed="numbers that differ",
            todo="check the column in labels.csv",
        )


LEAST_GOOD = 20
"""Good images outside the test that anomaly detection needs: of fewer, no threshold of 5 % false alarms is known."""


def refuse_no_good(labels: Iterable[str], source: str) -> None:
    """Raises:
    DataError: no image is labelled good.
    """
    names = sorted(set(labels))
    if GOOD not in names:
        raise DataError(
            f"{source}: no image is labelled {GOOD}, which `head.task: anomaly` learns from",
            got=f"the labels {listed(names)}" if names else "no image",
            allowed=f"`{GOOD}` for images without a defect; any other label is a kind of defect",
            todo=f"name the folder (or the label) of images without a defect `{GOOD}`",
        )


def _stop_without_good_images(manifest: pd.DataFrame, raw: Path) -> None:
    refuse_no_good(manifest["label"], str(raw))
    good = manifest[manifest["label"] == GOOD]
    learned, trained = (int(good["split"].isin(splits).sum()) for splits in (["train", "val"], ["train"]))
    if learned < LEAST_GOOD or not trained:
        held = _held_by_defects(manifest)
        raise DataError(
            f"{raw}: too few good images to learn from",
            got=f"{learned} outside the test, {trained} of them for training"
            + (f"; {held} in a group with a defect, which never trains" if held else ""),
            allowed=f"at least {LEAST_GOOD} outside the test, and one of them for training",
            todo="add good images" + (", or put those of defects into groups of their own" if held else ""),
        )
    if not (manifest["split"] == "test").any():
        raise DataError(
            f"{raw}: no image is left for the test",
            got=f"{len(manifest)} images",
            todo="add images, or raise `preprocess.test_fraction`",
        )


def _held_by_defects(manifest: pd.DataFrame) -> int:
    """Good images that do not train because their group has a defect."""
    is_good = manifest["label"] == GOOD
    groups = manifest.loc[~is_good, "group"].dropna().unique()
    return int((is_good & manifest["group"].isin(groups) & manifest["split"].ne("train")).sum())


def _stop_without_images(manifest: pd.DataFrame, raw: Path) -> None:
    if not len(manifest):
        raise DataError(f"{raw} holds no image", todo="add images")


_CHECKS = {
    "anomaly": _stop_without_good_images,
    "classification": _stop_without_two_classes,
    "multilabel": _stop_without_a_class,
    "reconstruction": _stop_without_images,
    "regression": _stop_without_two_numbers,
}


def warn_of_doubtful_labels(manifest: pd.DataFrame) -> None:
    """Prints what may be a mistake in the labels, but does not stop the run."""
    _warn_of_names(manifest)
    (_warn_of_defects if task_of(manifest) == "anomaly" else _warn_of_small_classes)(manifest)
    _warn_of_torn_groups(manifest)
    _warn_of_large_units(manifest)


def _warn_of_names(manifest: pd.DataFrame) -> None:
    for doubt in doubtful_names(classes(manifest)):
        say(f"preprocess: {doubt}")


def _warn_of_small_classes(manifest: pd.DataFrame) -> None:
    lacking = [name for name, count in counts(manifest).items() if not all(count.values())]
    if lacking:
        say(f"preprocess: classes with too few images to have one in each split: {_some(lacking)}")


def _warn_of_defects(manifest: pd.DataFrame) -> None:
    if not ((manifest["label"] != GOOD) & (manifest["split"] == "test")).any():
        say("preprocess: no image of a defect is in the test; how many defects the model detects will be unknown")


def _warn_of_torn_groups(manifest: pd.DataFrame) -> None:
    """Only splits that the data bring can separate a group; they are kept, but the test may then be too easy."""
    splits = manifest.groupby("group")["split"].nunique()
    names = [str(name) for name in splits.index[splits > 1]]
    if names:
        say(f"preprocess: the given splits separate images of the same group: {_some(names)}; the test may be too easy")


def _warn_of_large_units(manifest: pd.DataFrame) -> None:
    """Of a split that one group fills, a metric tells about that group."""
    large = _large_units(manifest)
    if large:
        say(
            f"preprocess: groups with more than {LARGE:.0%} of a class or of all images: {_some(large)}; a metric "
            "on images of one group says little about others. To place a group yourself, give its images a `split` in "
            "labels.csv"
        )


def _large_units(manifest: pd.DataFrame) -> list[str]:
    """Each with its largest share and the split that it went to, the largest first; single images are none."""
    unit_N, names = units(manifest)
    rows = manifest.assign(unit=unit_N)
    of_class = by_class(rows).groupby(["label", "unit"]).size().rename("images").reset_index()
    of_all = rows.groupby("unit").size().rename("images").reset_index()
    shares = pd.concat([of_all.assign(label="", whole=len(rows)), _with_whole(of_class)], ignore_index=True)
    shares["share"] = shares["images"] / shares["whole"]
    large = shares[(shares["share"] > LARGE) & (shares["images"] > 1)].drop_duplicates("unit")
    large = large.sort_values(["share", "unit"], ascending=[False, True])
    return [
        _described(rows[rows["unit"] == unit], names[unit], share, label)
        for unit, share, label in large[["unit", "share", "label"]].itertuples(index=False)
    ]


def _with_whole(counts: pd.DataFrame) -> pd.DataFrame:
    return counts.assign(whole=counts.groupby("label")["images"].transform("sum"))


def _described(images: pd.DataFrame, name: str, share: float, label: str) -> str:
    of = f"class {label}" if label else "all images"
    group = name.removeprefix("group:") if name.startswith("group:") else f"copies of {images['path'].iloc[0]}"
    return f"{group} ({share:.0%} of {of}, in {' and '.join(sorted(images['split'].unique()))})"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
