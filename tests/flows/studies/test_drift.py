"""`graft drift`, on a project whose pipeline has run: 24 training images of noise in three colours, random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from projects import draw

from graft.flows.runtime.params import Params, load_params
from graft.flows.serving.image_list import list_source
from graft.flows.studies import drift
from graft.flows.studies.drift import (
    Today,
    check_drift,
    features_of,
    from_manifest,
    from_source,
    read_reference,
)
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.files import md5, read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.feature_cache.segments import ids_of
from graft.tasks.common.images.reading import Reading
from graft.tasks.register.reference_set import Reference

if TYPE_CHECKING:
    from projects import Project


def draw_alike(folder: Path, each: int = 12) -> Path:
    """Images that no project has, of the same three colours."""
    for colour in range(3):
        for number in range(100, 100 + each):
            draw(folder / "any" / "tree" / f"{colour}-{number}.png", colour, number)
    return folder


def draw_brighter(folder: Path) -> Path:
    """The same in another light."""
    for file in sorted(draw_alike(folder).rglob("*.png")):
        pixels = np.asarray(Image.open(file)) * 1.5
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def champion(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project in which images may be compared."""
    return finished.copy(tmp_path_factory.mktemp("champion") / "project")


@pytest.fixture(scope="module")
def drifted(champion: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    """The exit code, and what was printed as JSON."""
    folder = draw_brighter(tmp_path_factory.mktemp("bright"))
    done = champion.graft_here("drift", str(folder), "--json", check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def reference(finished: Project) -> Reference:
    found = Reference.load(finished.root / "models" / "package")
    assert found is not None
    return found


@pytest.fixture
def settings(finished: Project) -> Params:
    return load_params(finished.root / "params.yaml")


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in which this very process may compare."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return project


def of_split(project: Project, *splits: str) -> pd.DataFrame:
    manifest = pd.read_parquet(project.root / "data" / "manifest" / "manifest.parquet")
    return manifest[manifest["split"].isin(splits)]


def test_images_in_another_light_are_drift_with_an_exit_code_of_its_own(drifted: tuple[int, dict[str, Any]]) -> None:
    code, found = drifted

    assert code == 3
    assert found["verdict"] == "drift"
    assert found["mmd"]["p"] <= 0.005
    assert (found["model"], found["version"], found["asked_for"]) == ("graft", 1, "champion")
    assert (found["images"], found["reference_images"]) == (36, 24)
    assert len(found["farthest"]) == 10


def test_images_that_are_alike_are_none_with_exit_code_0(champion: Project, tmp_path: Path) -> None:
    done = champion.graft_here("drift", str(draw_alike(tmp_path / "alike")))

    assert done.returncode == 0
    assert "no drift: as far as 36 images can tell" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_file_is_the_json_that_was_printed_and_git_ignores_it(here: Project, tmp_path: Path) -> None:
    report = check_drift(here.root, draw_alike(tmp_path / "alike"))

    assert json.loads(Path(report.document["file"]).read_text(encoding="utf-8")) == report.document
    assert report.verdict == report.document["verdict"] == "none"
    with Image.open(report.document["plot"]) as image:
        assert image.width > 500
    assert "drift" not in here.git("status", "--porcelain")


def test_mlflow_has_a_run_with_metrics_verdict_and_files(
    champion: Project, drifted: tuple[int, dict[str, Any]]
) -> None:
    _, found = drifted
    (run,) = [run for run in champion.runs() if run.info.run_id == found["mlflow_run_id"]]

    assert (run.info.run_name, run.info.status) == ("drift", "FINISHED")
    assert run.data.metrics["mmd.value"] == found["mmd"]["value"]
    assert run.data.metrics["far.p"] == found["far"]["p"]
    assert (run.data.tags["verdict"], run.data.tags["version"]) == ("drift", "1")
    assert {file.path for file in champion.mlflow().list_artifacts(run.info.run_id)} == {"drift.json", "drift.png"}


def test_a_version_may_be_named_by_its_number(here: Project, tmp_path: Path) -> None:
    found = check_drift(here.root, draw_alike(tmp_path / "alike"), "1").document

    assert (found["version"], found["asked_for"]) == (1, "1")


def test_a_version_that_there_is_not_is_told_with_those_that_there_are(here: Project, tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="has no version `2`") as caught:
        check_drift(here.root, tmp_path, "2")

    assert caught.value.allowed == "challenger (version 1), champion (version 1)"


def test_without_a_champion_there_is_one_clear_error(empty_project: Project) -> None:
    done = empty_project.graft_here("drift", check=False)

    assert done.returncode == 2
    assert "no model is registered" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (empty_project.root / "mlflow.db").exists()


def test_a_package_without_a_reference_is_refused(tmp_path: Path, finished: Project) -> None:
    with pytest.raises(DataError, match="version 1 of `graft` does not record what it was trained on") as caught:
        read_reference(tmp_path, finished.mlflow().get_model_version("graft", "1"))

    assert "graft repro" in caught.value.todo


def test_a_reference_of_too_few_images_is_refused(tmp_path: Path, finished: Project, reference: Reference) -> None:
    few = Reference(reference.features_nD[:19], reference.groups_n[:19], reference.seen_ids, ids_of([]), "")
    few.save(tmp_path)

    with pytest.raises(DataError, match="too few images"):
        read_reference(tmp_path, finished.mlflow().get_model_version("graft", "1"))


def test_by_default_it_is_the_images_that_have_come_since(here: Project) -> None:
    draw_alike(here.root / "data" / "raw" / "red", each=8)

    found = check_drift(here.root).document

    assert found["what"] == "24 of the 24 images of data/raw that were added since it was trained"
    assert all(one["path"].startswith("red/any/tree/") for one in found["farthest"])
    (run,) = [run for run in here.runs() if run.info.run_id == found["mlflow_run_id"]]
    assert run.inputs.dataset_inputs[0].dataset.digest == found["dataset"]


def test_if_too_few_have_come_since_it_is_all_that_the_model_was_not_trained_on(
    here: Project, reference: Reference, settings: Params
) -> None:
    for number in range(100, 115):
        draw(here.root / "data" / "raw" / "red" / f"{number}.png", 0, number)

    today = from_manifest(Paths(here.root), reference, settings.drift)

    assert today.what == "24 of the 24 images of data/raw that it was not trained on"
    assert set(reference.held_out_ids.tolist()) < set(today.ids.tolist())
    assert not set(reference.seen_ids.tolist()) & set(today.ids.tolist())


def test_too_few_images_are_told_with_what_was_left_out(here: Project) -> None:
    with pytest.raises(DataError, match="data/raw has too few new images") as caught:
        check_drift(here.root)

    assert caught.value.got == "9; left out: 33 known to the model"


def test_what_is_not_compared_is_counted(
    tmp_path: Path, finished: Project, reference: Reference, settings: Params
) -> None:
    folder = draw_alike(tmp_path / "mixed")
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    (folder / ".DS_Store").write_bytes(b"hidden")
    Image.new("RGB", (32, 32)).save(folder / "black.png")
    Image.new("RGB", (8, 8)).save(folder / "tiny.png")
    draw(folder / "copy.png", 0, 100)
    trained_on = of_split(finished, "train")["path"].iloc[0]
    (folder / "known.png").write_bytes((finished.root / "data" / "raw" / trained_on).read_bytes())

    today = from_source(folder, reference, settings, Reading())

    assert len(today.names) == 36
    assert today.left_out == {
        "not an image": 1,
        "blank": 1,
        "too small": 1,
        "a copy of another": 1,
        "seen in training": 1,
    }


def test_a_sample_is_the_same_every_time(tmp_path: Path, reference: Reference, settings: Params) -> None:
    folder = draw_alike(tmp_path / "many")
    few = settings.model_copy(update={"drift": settings.drift.model_copy(update={"sample": 20})})
    other = few.model_copy(update={"drift": few.drift.model_copy(update={"seed": 1})})

    one, two, another = (from_source(folder, reference, how, Reading()).names for how in (few, few, other))

    assert one == two
    assert len(one) == len(another) == 20
    assert set(one) != set(another)
    assert [bytes.fromhex(md5(folder / name)) for name in one] == from_source(
        folder, reference, few, Reading()
    ).ids.tolist()


def test_a_table_names_images_and_their_groups(tmp_path: Path, reference: Reference, settings: Params) -> None:
    folder = draw_alike(tmp_path / "images")
    names = sorted(file.relative_to(tmp_path).as_posix() for file in folder.rglob("*.png"))
    table = pd.DataFrame({"path": names, "group": [*["scene"] * 10, *[""] * (len(names) - 10)]})
    table.to_csv(tmp_path / "today.csv", index=False)

    today = from_source(tmp_path / "today.csv", reference, settings, Reading())

    assert sorted(today.names) == names
    assert sorted(np.bincount(today.units_m)) == [*[1] * (len(names) - 10), 10]


def test_of_lossless_copies_one_is_taken(tmp_path: Path, reference: Reference, settings: Params) -> None:
    folder = draw_alike(tmp_path / "images")
    names = {file.stem for file in folder.rglob("*.png")}
    for file in sorted(folder.rglob("*.png"))[:5]:
        Image.open(file).save(file.with_suffix(".bmp"))

    today = from_source(folder, reference, settings, Reading())

    assert sorted(Path(name).stem for name in today.names) == sorted(names)
    assert today.left_out == {"a copy of another": 5}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing", None, "neither a folder nor a table"),
        ("notes.txt", b"path\n", "neither a folder nor a table"),
        ("today.parquet", b"no table", "cannot be read as a table"),
        ("today.csv", b"photo,label\na.png,red\n", "has no column `path`"),
        ("today.csv", b"path\na.png\n", "names files that do not exist"),
    ],
    ids=["absent", "another file", "damaged", "another column", "absent image"],
)
def test_what_is_neither_folder_nor_table_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=message):
        list_source(tmp_path / name)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_without_a_path_are_told_by_their_numbers(tmp_path: Path, kind: str) -> None:
    draw(tmp_path / "a.png", 0, 1)
    table = pd.DataFrame({"path": ["a.png", None, "a.png", " "], "group": "scene"})
    source = tmp_path / f"today.{kind}"
    table.to_csv(source, index=False) if kind == "csv" else table.to_parquet(source)

    with pytest.raises(DataError, match="has rows without a path") as caught:
        list_source(source)

    assert caught.value.got == "2 of 4: row 2, 4"


def test_what_was_compared_of_groups_is_said_on_the_screen_and_in_the_report(here: Project, tmp_path: Path) -> None:
    folder = draw_alike(tmp_path / "images")
    names = sorted(file.relative_to(tmp_path).as_posix() for file in folder.rglob("*.png"))
    table = pd.DataFrame({"path": names, "group": np.arange(len(names)) // 2})
    table.to_csv(tmp_path / "today.csv", index=False)

    done = here.graft_here("drift", str(tmp_path / "today.csv"))
    found = read_json(here.root / ".graft" / "drift" / "drift.json")

    assert found["compared"] == {"reference_images": 24, "reference_groups": 24, "images": 18, "groups": 18}
    assert "compared  18 images in 18 groups with 24 training images in 24 groups" in done.stdout
    assert f"below {found['mmd']['chance']:.3f} cannot be told from chance" in done.stdout
    assert {one["path"] for one in found["farthest"]} < set(names)


def test_images_of_one_group_alone_are_refused(champion: Project, tmp_path: Path) -> None:
    folder = draw_brighter(tmp_path / "images")
    names = sorted(file.relative_to(tmp_path).as_posix() for file in folder.rglob("*.png"))
    pd.DataFrame({"path": names, "group": "film"}).to_csv(tmp_path / "today.csv", index=False)

    done = champion.graft_here("drift", str(tmp_path / "today.csv"), check=False)

    assert done.returncode == 2
    assert "too few groups" in done.stderr
    assert "1 of the new images and 24 of the model's" in done.stderr


def test_features_that_the_cache_holds_are_not_computed_again(
    finished: Project, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, rows = Paths(finished.root), of_split(finished, "test")
    files = [paths.raw / path for path in rows["path"]]
    today = Today(list(rows["path"]), files, ids_of(list(rows["image_id"])), np.arange(len(files)), "")
    nowhere = Paths(finished.root / "no cache")
    computed = features_of(today, reference, paths.package, nowhere)
    monkeypatch.setattr(drift, "package_features", lambda *given: pytest.fail("computed again"))

    assert np.allclose(features_of(today, reference, paths.package, paths), computed, atol=1e-2)
