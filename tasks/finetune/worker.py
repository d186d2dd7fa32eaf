"""One of several processes that share a training; started by the stage itself, or on several machines by hand:

    torchrun --nnodes 2 --nproc-per-node 4 ... -m graft.tasks.finetune.worker PROJECT

The project must be the same for all, on a disk that they share. The result is the checkpoint of a finished
training, from which the stage `finetune` continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..common.core.errors import GraftError
from ..common.core.files import read_json
from ..common.core.paths import Paths
from ..common.core.sections import parse_section, read_params
from ..common.data.feature_set import read_feature_set
from ..common.heads.linear import LinearHead
from ..common.heads.load import load_head
from .decision import why_no_start
from .lessons import MAIN, lesson_named, weighed
from .params import FinetuneParams
from .session import open_lesson


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("params", nargs="?", help="the section `finetune` as JSON; by default that of params.yaml")
    parser.add_argument("--lesson", default=MAIN, help="which training of the stage: main, fold N or refit")
    parser.add_argument("--seconds", type=float, help="end before they are over")
    parser.add_argument("--stop", type=int, help="the epoch after which to end")
    options = parser.parse_args()
    try:
        train(options.project, options.params, options.lesson, options.seconds, options.stop)
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def train(project: Path, params: str | None, lesson: str, seconds: float | None, stop: int | None) -> None:
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
    facts = read_json(paths.head / "selected.json")
    pack = weighed(pack, facts.get("class_weights"))
    job = open_lesson(lesson_named(lesson, pack, chosen), chosen, pack, facts, paths, stop)
    job.run(job.checkpoint(), seconds)


if __name__ == "__main__":
    sys.exit(main())
