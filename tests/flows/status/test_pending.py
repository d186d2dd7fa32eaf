"""What would run, and why: the stages that DVC names, in words, and by class where it is images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from projects import Project, draw, draw_classes

from graft.flows.status.image_diff import ImageChanges, images_between
from graft.flows.status.pending import Changes, pending, pending_here
from graft.flows.versioning.dvc import raw_hash
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import STAGES
from graft.tasks.common.data.task import Task


def draw_new_images(project: Project) -> None:
    for number in range(3):
        draw(project.root / "data" / "raw" / "red" / f"new{number}.png", 0, 800 + number)
    draw(project.root / "data" / "raw" / "blue" / "new.png", 2, 900)


def add_images(project: Project) -> None:
    draw_new_images(project)
    project.dvc("add", "data/raw")


def change_params(project: Project) -> None:
    project.set("head", l2_max=0.5)


def change_task(project: Project) -> None:
    """A parameter of another stage's."""
    project.set("head", task="regression")


def change_code_of_all(project: Project) -> None:
    run_with_other_code(project, "tasks/common/core")


def change_code_of_two(project: Project) -> None:
    run_with_other_code(project, "tasks/common/solvers", "tasks/head")


def change_command(project: Project) -> None:
    file = project.root / "dvc.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(
        text.replace("python -P -m graft.flows.stage head", "python -B -P -m graft.flows.stage head"), encoding="utf-8"
    )


def change_weights(project: Project) -> None:
    (project.root / "data" / "weights" / "mine.safetensors").write_bytes(b"weights")


def change_backbone(project: Project) -> None:
    project.set("features", backbone="test_vit")


def change_pins(project: Project) -> None:
    with (project.root / "data" / "pins.csv").open("a", encoding="utf-8") as file:
        file.write("0,0123456789abcdef0123456789abcdef,test\n")


def change_output(project: Project) -> None:
    (project.root / "models" / "head" / "more.txt").write_text("by hand", encoding="utf-8")


def remove_output(project: Project) -> None:
    shutil.rmtree(project.root / "plots" / "audit")


def remove_metrics(project: Project) -> None:
    """An output that git keeps, not DVC."""
    (project.root / "metrics" / "head.json").unlink()


def remove_pins(project: Project) -> None:
    (project.root / "data" / "pins.csv").unlink()


def lose_a_copy(project: Project) -> None:
    """As `dvc gc` does, or a hand."""
    digest = project.lock()["models/head"]
    (project.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]).unlink()


def forget_a_stage(project: Project) -> None:
    """As a merge of two dvc.lock may."""
    file = project.root / "dvc.lock"
    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r"(?ms)^  register:$.*?(?=^  \w|\Z)", "", text), encoding="utf-8")


def run_with_other_code(project: Project, *folders: str) -> None:
    """As if the stages had run before an upgrade that changed these folders of the code."""
    file = project.root / "dvc.lock"
    text = file.read_text(encoding="utf-8")
    for folder in folders:
        text, found = re.subn(rf"(?m)^(\s+{folder}: )\w+\.dir$", rf"\g<1>{0:032}.dir", text)
        assert found
    file.write_text(text, encoding="utf-8")


def status_of(project: Project) -> set[str]:
    """The stages that DVC finds changed."""
    return {*json.loads(project.dvc("status", "--json").stdout or "{}")} & {*STAGES}


def kinds(changes: Changes) -> dict[str, list[str]]:
    return {stage: [reason.kind for reason in reasons] for stage, reasons in changes.reasons.items()}


KEPT: list[tuple[Callable[[Project], None], str]] = [
    (add_images, "+4 images (3 in class red, 1 in class blue); backbone unchanged"),
    (change_params, "params head.l2_max changed; backbone unchanged"),
    (change_task, "params head.task changed; backbone unchanged"),
    (change_code_of_all, "code of tasks/common/core changed; backbone unchanged"),
    (change_code_of_two, "code of tasks/common/solvers, tasks/head changed; backbone unchanged"),
    (change_command, "code of dvc.yaml changed; backbone unchanged"),
    (change_weights, "data/weights changed"),
    (change_backbone, "params features.backbone changed"),
    (change_pins, "data/pins.csv changed; backbone unchanged"),
    (remove_pins, "data/pins.csv is missing; backbone unchanged"),
    (forget_a_stage, "register never ran"),
]
"""What git or DVC keep, and what is said of a change of it."""

HERE: list[tuple[Callable[[Project], None], str]] = [
    (draw_new_images, "+4 images (3 in class red, 1 in class blue); backbone unchanged"),
    (change_output, "models/head changed; backbone unchanged"),
    (remove_output, "plots/audit is missing; backbone unchanged"),
    (remove_metrics, "metrics/head.json is missing; backbone unchanged"),
    (lose_a_copy, "models/head is not in DVC's cache; backbone unchanged"),
]
"""What is so only in this checkout."""


@pytest.mark.parametrize(("change", "told"), [*KEPT, *HERE])
def test_the_stages_are_those_that_dvc_names_and_the_sentence_says_why(
    project: Project, change: Callable[[Project], None], told: str
) -> None:
    change(project)

    changes = pending_here(project.root)

    assert changes.sentence == told
    assert set(changes.stages) == status_of(project)
    assert changes.stages == tuple(stage for stage in STAGES if stage in changes.stages)


@pytest.mark.parametrize(("change", "told"), KEPT)
def test_what_is_kept_says_the_same_in_a_worktree_in_which_nothing_is_checked_out(
    project: Project, change: Callable[[Project], None], told: str, tmp_path: Path
) -> None:
    change(project)
    project.git("add", "--all", "--force", "--", "data/weights", "data/pins.csv")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "changed")
    project.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "worktree"))
    worktree = Project(tmp_path / "worktree")
    worktree.dvc("cache", "dir", "--local", str(project.root / ".dvc" / "cache"))

    changes = pending(worktree.root)

    assert changes.sentence == told
    assert changes == pending(project.root)
    assert {*changes.stages} == {*pending_here(project.root).stages}


def test_after_a_run_nothing_is_pending(finished: Project) -> None:
    for look in (pending, pending_here):
        changes = look(finished.root)
        assert changes.empty
        assert (changes.stages, changes.downstream, changes.images, changes.sentence) == ((), (), None, "")


def test_nor_after_a_checkout_elsewhere(project: Project, tmp_path: Path) -> None:
    """All that DVC keeps is brought from its cache; then data/raw is taken away again."""
    project.git("clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.dvc("cache", "dir", "--local", str(project.root / ".dvc" / "cache"))
    assert pending(clone.root).empty

    clone.dvc("checkout", "--quiet")

    assert pending_here(clone.root).empty
    assert status_of(clone) == set()
    shutil.rmtree(clone.root / "data" / "raw")
    assert pending_here(clone.root).empty


def test_what_is_kept_is_not_touched_by_what_lies_here(project: Project) -> None:
    for change in (draw_new_images, change_output, remove_output, remove_metrics):
        change(project)

    assert pending(project.root).empty


def test_weights_under_dvc_count_as_brought(project: Project, tmp_path: Path) -> None:
    change_weights(project)
    project.dvc("add", "data/weights/mine.safetensors")
    project.dvc("commit", "--force", "features", "finetune", "evaluate", "register")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "weights")
    assert pending(project.root).empty

    (project.root / "data" / "weights" / "mine.safetensors").unlink()

    assert pending(project.root).empty
    assert "weights" in kinds(pending_here(project.root))["features"]


def test_what_follows_may_run(project: Project) -> None:
    change_params(project)

    changes = pending(project.root)

    assert (changes.stages, changes.downstream) == (("head",), ("audit", "finetune", "evaluate", "register"))


def test_each_stage_has_reasons_of_its_own(project: Project) -> None:
    add_images(project)
    change_task(project)
    change_code_of_two(project)

    changes = pending(project.root)

    assert kinds(changes) == {
        "preprocess": ["images", "params"],
        "features": ["images"],
        "head": ["code", "params"],
        "audit": ["images", "code"],
        "finetune": ["images", "code"],
        "evaluate": ["images"],
        "register": ["images"],
    }
    assert changes.reasons["audit"][1].names == ("tasks/common/solvers",)
    assert changes.images == ImageChanges(4, 0, 0, {"red": 3, "blue": 1})
    assert changes.sentence == (
        "+4 images (3 in class red, 1 in class blue), params head.task changed, "
        "code of tasks/common/solvers, tasks/head changed; backbone unchanged"
    )


def test_a_run_that_stopped_half_way_leaves_the_images_to_the_later_stages(project: Project) -> None:
    add_images(project)
    project.dvc("repro", "preprocess")

    changes = pending(project.root)

    assert changes.stages[0] == "features"
    assert kinds(changes)["features"] == ["output", "images"] or kinds(changes)["features"] == ["images", "output"]
    assert changes.images == ImageChanges(4, 0, 0, {"red": 3, "blue": 1})


def test_nothing_has_run_in_a_new_project(empty_project: Project) -> None:
    for look in (pending, pending_here):
        changes = look(empty_project.root)
        assert changes.stages == STAGES
        assert changes.sentence == "nothing has run yet"


def test_files_that_dvc_has_not_seen_are_counted(project: Project) -> None:
    raw = project.root / "data" / "raw"
    draw(raw / "red" / "new.png", 0, 801)
    (raw / "green" / "000.png").unlink()
    draw(raw / "blue" / "000.png", 2, 802)
    (raw / "blue" / ".DS_Store").touch()

    changes = pending_here(project.root)

    assert changes.images == ImageChanges(1, 1, 1, {"red": 1}, {"green": 1}, {"blue": 1})
    assert changes.sentence.startswith("+1 image (class red), -1 image (class green), 1 image changed (class blue)")


def test_a_data_file_that_names_other_images_than_lie_here_is_told(project: Project) -> None:
    """Someone has pushed new images; `git pull` has brought data/raw.dvc alone."""
    file = project.root / "data" / "raw.dvc"
    before = file.read_text(encoding="utf-8")
    add_images(project)
    pushed = file.read_text(encoding="utf-8")
    file.write_text(before, encoding="utf-8")
    project.dvc("checkout", "--quiet", "--force", "data/raw.dvc")
    assert pending_here(project.root).note == ""

    file.write_text(pushed, encoding="utf-8")

    changes = pending_here(project.root)
    assert changes.empty
    assert changes.note.startswith("data/raw.dvc names other images (+4 images (3 in class red, 1 in class bl")
    assert pending(project.root).sentence.startswith("+4 images")
    assert "dvc checkout data/raw.dvc" in project.graft_here("status").stdout


def test_new_images_are_counted_without_being_read(project: Project) -> None:
    project.dvc("status")
    draw(project.root / "data" / "raw" / "red" / "new.png", 0, 801)

    with mock.patch("graft.flows.status.pending.md5", side_effect=AssertionError("it was read")):
        changes = pending_here(project.root)

    assert changes.images == ImageChanges(1, 0, 0, {"red": 1})


def test_a_file_that_was_only_touched_is_no_change(project: Project) -> None:
    file = project.root / "data" / "raw" / "red" / "000.png"
    os.utime(file, (1_700_000_000, 1_700_000_000))

    assert pending_here(project.root).empty
    assert status_of(project) == set()


def test_a_file_that_dvc_ignores_is_no_change(project: Project) -> None:
    (project.root / ".dvcignore").write_text("*.note\n__pycache__\n*.pyc\n", encoding="utf-8")
    (project.root / "data" / "raw" / "red" / "mine.note").write_text("x", encoding="utf-8")

    assert pending_here(project.root).empty


def test_a_listing_that_is_gone_leaves_only_that_images_changed(project: Project) -> None:
    before = raw_hash(project.root)
    add_images(project)
    (project.root / ".dvc" / "cache" / "files" / "md5" / before[:2] / before[2:]).unlink()

    for look in (pending, pending_here):
        changes = look(project.root)
        assert "preprocess" in changes.stages
        assert changes.images == ImageChanges(known=False)
        assert changes.sentence.startswith("images changed (the number is unknown")


@pytest.mark.parametrize("value", ["off", "'off'", "1e-5", "1.0e-5", "null", "[1, 2.5, x]", "true", "007", "''"])
def test_a_value_that_dvc_has_written_to_its_lock_is_the_same_value(project: Project, value: str) -> None:
    file = project.root / "params.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("\nhead:\n", f"\nhead:\n  more: {value}\n"), encoding="utf-8")
    assert pending(project.root).stages == ("head",)

    project.dvc("commit", "--force", "head")

    assert status_of(project) == set()
    assert pending(project.root).empty


def test_of_split_folders_the_class_is_the_folder_below(empty_project: Project) -> None:
    raw = empty_project.root / "data" / "raw"
    draw_classes(raw / "train", each=2)
    draw_classes(raw / "test", each=1)
    empty_project.dvc("add", "data/raw")
    before = raw_hash(empty_project.root)
    draw(raw / "train" / "red" / "new.png", 0, 800)
    empty_project.dvc("add", "data/raw")

    assert images_between(empty_project.root, before, raw_hash(empty_project.root)).added_by_class == {"red": 1}


ONES = ["path,label:a,label:b", "0,1,0", "1,0,1"]


@pytest.mark.parametrize(
    ("task", "before", "after", "expected"),
    [
        (
            "classification",
            ["path,label", "0,red", "1,red"],
            ["path,label", "0,red", "1,blue", "3,a|b"],
            ({"a|b": 1}, {"blue": 1}),
        ),
        (
            "multilabel",
            ["path,label", "0,a", "1,a|b"],
            ["path,label", "0,a", "1,b", "3,a|b"],
            ({"a": 1, "b": 1}, {"b": 1}),
        ),
        ("multilabel", ONES, [*ONES[:2], "1,1,1", "3,1,0"], ({"a": 1}, {"a": 1, "b": 1})),
        ("regression", ["path,target", "0,1.5", "1,2"], ["path,target", "0,1.5", "1,3", "3,4"], ({}, {})),
    ],
)
def test_of_a_table_the_class_is_the_label_and_a_new_label_is_a_change(
    empty_project: Project,
    task: Task,
    before: list[str],
    after: list[str],
    expected: tuple[dict[str, int], dict[str, int]],
) -> None:
    raw = empty_project.root / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "0").write_bytes(b"0")
    (raw / "1").write_bytes(b"1")
    (raw / "labels.csv").write_text("\n".join(before), encoding="utf-8")
    empty_project.dvc("add", "data/raw")
    old = raw_hash(empty_project.root)
    (raw / "3").write_bytes(b"3")
    (raw / "labels.csv").write_text("\n".join(after), encoding="utf-8")
    empty_project.dvc("add", "data/raw")

    found = images_between(empty_project.root, old, raw_hash(empty_project.root), task)

    assert (found.added, found.removed, found.changed) == (1, 0, 1)
    assert (found.added_by_class, found.changed_by_class) == expected


@pytest.mark.parametrize(
    ("by_class", "told"),
    [
        ({"bees": 312}, "+312 images (class bees)"),
        ({"bees": 280}, "+312 images (280 in class bees)"),
        ({"bees": 280, "ants": 32}, "+312 images (280 in class bees, 32 in class ants)"),
        ({"bees": 280, **{f"c{n}": 2 for n in range(16)}}, "+312 images (280 in class bees)"),
        ({f"c{n}": 12 for n in range(26)}, "+312 images (in 26 classes)"),
        ({}, "+312 images"),
    ],
)
def test_of_many_classes_the_large_ones_are_named(by_class: dict[str, int], told: str) -> None:
    assert ImageChanges(added=312, added_by_class=by_class).words() == told


def test_a_lock_with_conflicts_is_named(project: Project) -> None:
    (project.root / "dvc.lock").write_text("<<<<<<< HEAD\nstages:\n", encoding="utf-8")

    with pytest.raises(GraftError, match=r"dvc\.lock has an unresolved merge conflict"):
        pending(project.root)


def test_nothing_large_is_loaded(finished: Project) -> None:
    code = (
        "import sys, pathlib; from graft.flows.status.pending import pending; pending(pathlib.Path.cwd());"
        "print(sorted({'pandas', 'numpy', 'mlflow', 'torch', 'prefect', 'dvc.repo'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=finished.root, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_status_says_it_stage_by_stage(project: Project) -> None:
    assert project.graft_here("status").stdout.startswith("nothing to do")
    draw_new_images(project)
    change_params(project)

    told = project.graft_here("status", COLUMNS="200").stdout.splitlines()

    assert told[0].startswith("+4 images (3 in class red, 1 in class blue), params head.l2_max changed;")
    rows = {line.split()[0]: line for line in told if line.strip()}
    assert "runs" in rows["head"]
    assert "params head.l2_max changed" in rows["head"]
    change = json.loads(project.graft_here("status", "--json").stdout)
    assert change["images"]["added_by_class"] == {"red": 3, "blue": 1}
    assert change["reasons"]["head"] == [
        {"kind": "params", "words": "params head.l2_max changed", "names": ["head.l2_max"]}
    ]


def test_status_tells_what_may_run_from_what_stays(project: Project) -> None:
    change_params(project)

    table, _, hint = project.graft_here("status", COLUMNS="200").stdout.partition("\n\n")[2].partition("\n\n")

    does = {line.split()[0]: line[12:].strip() for line in table.splitlines()[1:]}
    assert [stage for stage, what in does.items() if what == "unchanged"] == ["preprocess", "features"]
    assert [stage for stage, what in does.items() if what == "may run"] == ["audit", "finetune", "evaluate", "register"]
    assert hint.startswith("A stage that may run runs only if")


def test_status_says_each_reason_once(project: Project) -> None:
    change_code_of_all(project)

    told = project.graft_here("status", COLUMNS="200").stdout

    table = told.partition("\n\n")[2]
    assert table.count("code of tasks/common/core changed") == 1
    assert table.count("as preprocess") == len(STAGES) - 1


def test_status_answers_without_mlflow(finished: Project) -> None:
    assert not {"mlflow", "torch", "pandas"} & finished.loaded_by("status")
