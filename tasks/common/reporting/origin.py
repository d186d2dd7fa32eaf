"""What a page was made from."""

from __future__ import annotations

from importlib.metadata import version
from typing import cast

import yaml

from ..core.paths import Paths
from ..data.eyes import backbones
from ..data.feature_set import FeatureSet

SHORT = 12
"""Characters of a hash."""


def origin(pack: FeatureSet, paths: Paths) -> dict[str, str]:
    """Name -> text. The same inputs and the same version of Graft give the same text on every machine, so there is no
    date, no commit and no path: MLflow's run and `graft trace` have them."""
    made = [eye.fingerprint for eye in pack.eyes]
    sizes = [f"{one['transform']['width']} x {one['transform']['height']} x {pack.channels}" for one in made]
    licences = dict.fromkeys(one["licence"] for one in made if "licence" in one)
    return {
        "images": f"{len(pack.index):,}",
        **data_hash(paths),
        "backbone": backbones(pack.fingerprint),
        "weights": ", ".join(dict.fromkeys(one["weights_sha256"][:SHORT] for one in made)),
        **({"licence": ", ".join(licences)} if licences else {}),
        "input": ", ".join(dict.fromkeys(sizes)),
        "crop": ", ".join(dict.fromkeys(one["transform"]["crop_mode"] for one in made)),
        "features": pack.fingerprint["digest"][:SHORT],
        "graft": version("graft"),
    }


def data_hash(paths: Paths) -> dict[str, str]:
    """`data` with the hash that DVC keeps of data/raw; nothing if DVC does not track it."""
    pointer = paths.raw.with_name("raw.dvc")
    if not pointer.is_file():
        return {}
    (out,) = yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"]
    return {"data": cast(str, out["md5"])} if "md5" in out else {}
