"""Which files are left out, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from ..common.core.errors import DataError
from ..common.core.files import whole_file
from ..common.core.paths import Paths
from ..common.data.manifest import SPLITS
from .check import WRONG_FORM, Look, judge, look
from .check_cache import Memory, NoLook
from .params import PreprocessParams
from .scan import hidden
from .splits import torn

HIDDEN = "hidden file"
"""The reason that does not count against `preprocess.max_rejected`: operating systems leave such files behind."""

DISCARDED = "discarded by "
"""The beginning of a reason that does not count either: a person decided it."""

FACTS = ["reason", "width", "height", "mode", "pixels", "low", "high"]


def check_files(files: pd.DataFrame, params: PreprocessParams, paths: Paths) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(usable images, with their `FACTS`; all other files, with a `reason`)."""
    reasons = files["fault"].copy()
    reasons[files["discarded"] != ""] = DISCARDED + files["discarded"]
    reasons[files["image_id"] == ""] = "cannot be read"
    reasons[files["path"].map(hidden)] = HIDDEN
    open_files = files[reasons == ""]
    looks = Memory(paths.cache / "checks", params.channels).looks(
        dict(zip(open_files["image_id"], paths.raw / open_files["path"])),
        lambda md5, path: look(path, params.channels, params.limits, md5),
    )
    facts = pd.DataFrame(
        [_facts(looks[md5], params) for md5 in open_files["image_id"]], index=open_files.index, columns=FACTS
    )
    table = files.join(facts)
    table["reason"] = reasons.where(reasons != "", table["reason"])
    table.loc[(table["reason"] == "") & table["label"].isna(), "reason"] = (
        "no label: neither in a class folder nor in the table"
    )
    sound = table["reason"] == ""
    return table[sound].reset_index(drop=True), table[~sound]


def _facts(seen: Look | NoLook, params: PreprocessParams) -> tuple[str, int, int, str, str, float | None, float | None]:
    if not isinstance(seen, Look):
        reason = f"cannot be read: {seen.strerror}" if isinstance(seen, OSError) else str(seen)
        return reason, 0, 0, "", "", None, None
    reason = judge(seen, params.min_side, params.placeholder_share, params.limits)
    return reason, seen.width, seen.height, seen.mode, seen.pixels, seen.low, seen.high


def hold_out(images: pd.DataFrame, rejected: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Holds out copies of the same pixels that have two labels, which are evidence for neither, or that would leak from
    one split into another."""
    reasons = pd.Series("", index=images.index)
    copies = images[images["pixels"].duplicated(keep=False)]
    for _, same in copies.groupby("pixels"):
        if same["label"].nunique() > 1:
            named = ", ".join(f"{r.label or 'no class'} ({r.path})" for r in same.itertuples())
            reasons[same.index] = f"same pixels under two labels: {named}"
    one_label = copies[reasons[copies.index] == ""]
    out = torn(one_label)
    for _, same in one_label[one_label["pixels"].isin(one_label.loc[out, "pixels"])].groupby("pixels"):
        first_of = same.groupby("split")["path"].first()
        for row in same[out[same.index]].itertuples():
            nearest = max((split for split in first_of.index if split != row.split), key=SPLITS.index)
            reasons[row.Index] = f"same pixels as an image of {nearest}: {first_of[nearest]}"
    held = reasons != ""
    return images[~held].reset_index(drop=True), pd.concat([rejected, images[held].assign(reason=reasons[held])])


def stop_if_too_many(rejected: pd.DataFrame, total: int, limit: float, listing: Path) -> None:
    """Raises:
    DataError: too many; `listing` then names them.
    """
    allowed = limit * total if limit < 1 else limit
    by_a_person = rejected["reason"].astype(str).str.startswith(DISCARDED)
    counted = rejected[(rejected["reason"] != HIDDEN) & ~by_a_person]
    if len(counted) <= allowed:
        return
    with whole_file(listing) as part:
        rejected[["path", "reason"]].to_csv(part, index=False)
    kinds = Counter(reason.split(":")[0] for reason in counted["reason"])
    bands = ", set `preprocess.channels` to the bands that the images have" if kinds[WRONG_FORM] else ""
    raise DataError(
        "more files were rejected than `preprocess.max_rejected` allows",
        got=f"{len(counted)} of {total}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
        allowed=f"{limit:g}" + (f" of all files = {allowed:.0f}" if limit < 1 else ""),
        todo=f"see {listing.parent.name}/{listing.name}; fix or remove the files{bands}, "
        "or raise `preprocess.max_rejected`",
    )
