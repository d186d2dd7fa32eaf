import copy
from pathlib import Path

import pytest

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import STAGES, Paths, find_root


@pytest.fixture
def root(tmp_path):
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_place_lies_below_the_root():
    assert Paths(Path("/p")).manifest == Path("/p/data/manifest")


def test_an_unknown_place_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nowhere"):
        _ = Paths(Path("/p")).nowhere


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_has_its_own_metrics_run_and_plots(stage):
    paths = Paths(Path("/p"))
    assert paths.metrics(stage) == Path(f"/p/metrics/{stage}.json")
    assert paths.run(stage) == Path(f"/p/runs/{stage}.json")
    assert paths.plots(stage) == Path(f"/p/plots/{stage}")


def test_a_relative_path_has_slashes_and_no_root():
    assert Paths(Path("/p")).relative(Path("/p/data/raw")) == "data/raw"


def test_paths_can_be_copied():
    assert copy.deepcopy(Paths(Path("/p"))) == Paths(Path("/p"))


def test_the_root_is_found_from_a_folder_below_it(root):
    below = root / "data" / "raw"
    below.mkdir(parents=True)
    assert find_root(below) == root.resolve()


def test_the_nearest_of_two_roots_is_taken(root):
    inner = root / "inner"
    inner.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        (inner / name).touch()
    assert find_root(inner) == inner.resolve()


def test_a_folder_with_only_one_of_the_two_files_is_no_root(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    with pytest.raises(GraftError, match="is not in a Graft project"):
        find_root(tmp_path)
