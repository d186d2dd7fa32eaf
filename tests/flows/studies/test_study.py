from __future__ import annotations

from pathlib import Path

import pytest

from graft.flows.runtime.params import Params
from graft.flows.studies.compare import compare_methods
from graft.flows.studies.rank import rank_backbones
from graft.flows.studies.study import metric_of_studies
from graft.tasks.common.core.errors import ParamsError


@pytest.mark.parametrize("task", ["anomaly", "reconstruction"])
def test_tasks_whose_models_are_not_compared_are_refused_by_rank_and_compare(tmp_path: Path, task: str) -> None:
    (tmp_path / "params.yaml").write_text(f"head:\n  task: {task}\n", encoding="utf-8")
    for study in (
        lambda: rank_backbones(tmp_path, [], None),
        lambda: compare_methods(tmp_path, ["head"], [1.0], 1, None),
    ):
        with pytest.raises(ParamsError, match="not compared for this task") as caught:
            study()
        assert caught.value.got == f"head.task: {task}"


def test_studies_compare_by_the_metric_that_was_asked_for() -> None:
    assert metric_of_studies("auroc", Params()) == "auroc"
    assert metric_of_studies(None, Params.model_validate({"head": {"task": "regression"}})) == "r2"
