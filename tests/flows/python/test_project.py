"""A project from a notebook or a script."""

from __future__ import annotations

import numpy as np
import pytest
from projects import Project

import graft
from graft.tasks.common.core.errors import GraftError


def test_a_folder_below_a_project_opens_it(finished: Project) -> None:
    assert graft.open(finished.root / "data").root == finished.root
    assert graft.open(str(finished.root)).root == finished.root


def test_a_folder_outside_a_project_is_refused_as_on_the_command_line(tmp_path) -> None:
    with pytest.raises(GraftError, match="is not in a Graft project"):
        graft.open(tmp_path)


def test_features_are_a_memory_map_of_all_images_in_the_order_of_the_table(finished: Project) -> None:
    found = graft.open(finished.root).features()

    assert isinstance(found.values, np.memmap)
    assert found.values.shape == (42, 256)
    assert found.values.dtype == np.float32
    assert found.labels.dtype == np.int64
    assert [found.classes[code] for code in found.labels] == found.table["label"].tolist()


def test_the_splits_of_the_features_are_all_of_them(finished: Project) -> None:
    project = graft.open(finished.root)

    every = project.features()
    parts = [project.features(split) for split in ("train", "val", "test")]

    assert sum(map(len, parts)) == len(every)
    (train, *_) = parts
    rows = np.flatnonzero(every.table["split"] == "train")
    assert np.array_equal(train.values, every.values[rows])
    assert train.table.index.tolist() == list(range(len(train)))


def test_a_split_that_does_not_exist_is_refused(finished: Project) -> None:
    with pytest.raises(GraftError, match=r"(?s)no such split.*train, val, test"):
        graft.open(finished.root).features("validation")


def test_the_manifest_and_the_parameters_are_those_of_the_project(finished: Project) -> None:
    project = graft.open(finished.root)

    assert len(project.manifest()) == 42
    assert project.params["features"]["backbone"] == "test_efficientnet"


def test_what_has_not_run_is_said_with_what_to_do(empty_project: Project) -> None:
    project = graft.open(empty_project.root)

    for ask in (project.features, project.report, project.audit, project.manifest):
        with pytest.raises(GraftError, match="graft repro"):
            ask()


def test_a_wrong_parameter_is_the_error_of_the_command_line(project: Project) -> None:
    project.set("head", strenghts=3)

    with pytest.raises(GraftError) as error:
        graft.open(project.root).params  # noqa: B018

    assert str(error.value) in project.graft_here("params", check=False).stderr


def test_a_stage_runs_in_a_process_of_its_own_and_tells_what_it_does(
    project: Project, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://a_notebooks.own")
    project.set("head", l2_max=0.25)
    before = project.lock()["models/head"]

    graft.open(project.root).repro("head")

    assert project.lock()["models/head"] != before
    assert "Running stage 'head'" in capfd.readouterr().out


def test_a_command_that_fails_raises_what_it_printed(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    project.set("gate", margin="wide")

    with pytest.raises(GraftError) as error:
        graft.open(project.root).run()

    assert str(error.value).startswith("params.yaml: `gate.margin`")
    assert f"error: {error.value}" in capfd.readouterr().out
    assert error.value.code == 2  # type: ignore[attr-defined]


def test_a_stage_that_does_not_exist_is_dvcs_own_error(project: Project) -> None:
    with pytest.raises(GraftError, match=r"(?s)`graft repro heads` failed.*heads"):
        graft.open(project.root).repro("heads")


def test_reading_results_leaves_the_plots_of_a_notebook_alone(finished: Project) -> None:
    program = (
        "import matplotlib; matplotlib.use('svg'); import graft;"
        f"project = graft.open({str(finished.root)!r}); project.report()._repr_html_(); project.audit()._repr_html_();"
        "project.status(); project.features(); print(matplotlib.get_backend())"
    )

    assert finished.call("python", "-c", program).stdout.strip() == "svg"
