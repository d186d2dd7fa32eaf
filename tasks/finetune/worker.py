"""One of several processes that share a training; started by the stage itself, or on several machines by hand:

    torchrun --nnodes 2 --nproc-per-node 4 ... -m tasks.finetune.worker PROJECT

The project must be the same for all, on a disk that they share. The result is the checkpoint of a finished
training, from which the stage `finetune` continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..common.core.errors import GraftError
from ..common.core.paths import Paths
from ..common.core.sections import parse_section, read_params
from ..common.data.feature_set import read_feature_set
from ..common.heads.linear import LinearHead
from ..common.heads.load import load_head
from .decision import why_no_start
from .params import FinetuneParams
from .session import Job


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("params", nargs="?", help="the section `finetune` as JSON; by default that of params.yaml")
    parser.add_argument("seconds", nargs="?", type=float, help="end before they are over")
    options = parser.parse_args()
    try:
        train(options.project, options.params, options.seconds)
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def train(project: Path, params: str | None, seconds: float | None) -> None:
    """Raises:
    GraftError: the same as in the stage itself.
    """
    paths = Paths(project)
    chosen = (
        FinetuneParams.model_validate_json(params)
        if params
        else parse_section(FinetuneParams, read_params(paths.params).get("finetune"), "finetune")
    )
    pack, head = read_feature_set(paths.features), load_head(paths.head, "selected")
    if not isinstance(head, LinearHead):
        raise GraftError(why_no_start(chosen, head.kind))
    job = Job(chosen, pack, head, paths, pack.rows("train"), pack.rows("val"))
    job.run(job.checkpoint(), seconds)


if __name__ == "__main__":
    sys.exit(main())
