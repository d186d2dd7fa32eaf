"""Answers are committed alone and pushed; nothing else of the checkout is touched."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from projects import Project, made_repository, make_project, wait_for

from graft.flows.labelling.pool import read_pool
from graft.flows.labelling.publish import publish_labels
from graft.tasks.common.core.errors import GraftError
from graft.tasks.preprocess.label_history import Answer, append_answers, now, read_answers

FILE = "data/labels.csv"


@pytest.fixture
def shared(tmp_path: Path) -> Project:
    return made_repository(make_project(tmp_path / "project"), tmp_path)


def answer(project: Project, number: int) -> None:
    append_answers(project.root / FILE, [Answer(f"{number:032x}", "red", "ann", now(), "margin", "")])


def colleague(tmp_path: Path) -> Project:
    clone = Project(tmp_path / "colleague")
    subprocess.run(["git", "clone", "--quiet", str(tmp_path / "remote.git"), str(clone.root)], check=True)
    return clone


def commit(project: Project, name: str, text: str) -> None:
    (project.root / name).write_text(text, encoding="utf-8")
    project.git("add", name)
    project.git("commit", "--quiet", "--message", name)


def pushed(project: Project) -> str:
    return project.git("ls-remote", "origin", "refs/heads/main").split()[0]


def test_the_answers_are_committed_alone_and_pushed(shared: Project) -> None:
    (shared.root / "staged.txt").write_text("mine", encoding="utf-8")
    shared.git("add", "staged.txt")
    (shared.root / "dvc.yaml").write_text("# in the middle of something", encoding="utf-8")
    before = shared.git("status", "--porcelain")
    answer(shared, 1)
    answer(shared, 2)
    done = publish_labels(shared.root)
    assert done.sentence() == "2 answers committed on main, pushed"
    assert shared.git("show", "--format=", "--name-only", "HEAD") == FILE
    assert pushed(shared) == shared.git("rev-parse", "HEAD")
    assert shared.git("status", "--porcelain") == before


def test_without_new_answers_there_is_no_commit(shared: Project) -> None:
    before = shared.git("rev-parse", "HEAD")
    assert publish_labels(shared.root).sentence() == "no new answers, pushed"
    assert shared.git("rev-parse", "HEAD") == before


def test_answers_of_two_people_go_together(shared: Project, tmp_path: Path) -> None:
    other = colleague(tmp_path)
    answer(other, 7)
    assert publish_labels(other.root).pushed
    (shared.root / "README").write_text("mine, uncommitted", encoding="utf-8")
    answer(shared, 8)
    assert publish_labels(shared.root).pushed
    assert {one.image_id for one in read_answers(shared.root / FILE)} == {f"{7:032x}", f"{8:032x}"}
    assert pushed(shared) == shared.git("rev-parse", "HEAD")
    assert shared.git("log", "--format=%s").splitlines()[:2] == ["Label images: 1 answer"] * 2
    assert (shared.root / "README").read_text(encoding="utf-8") == "mine, uncommitted"


def test_uncommitted_changes_survive_a_rebase(shared: Project, tmp_path: Path) -> None:
    commit(other := colleague(tmp_path), "theirs.txt", "new")
    other.git("push", "--quiet", "origin", "main")
    mine = (shared.root / "params.yaml").read_text(encoding="utf-8") + "# mine\n"
    (shared.root / "params.yaml").write_text(mine, encoding="utf-8")
    answer(shared, 1)
    assert publish_labels(shared.root).pushed
    assert (shared.root / "params.yaml").read_text(encoding="utf-8") == mine
    assert (shared.root / "theirs.txt").is_file()
    assert not shared.git("stash", "list")


def test_a_file_that_both_have_changed_is_left_to_the_person(shared: Project, tmp_path: Path) -> None:
    other = colleague(tmp_path)
    text = (shared.root / "params.yaml").read_text(encoding="utf-8")
    commit(other, "params.yaml", text + "# theirs\n")
    other.git("push", "--quiet", "origin", "main")
    (shared.root / "params.yaml").write_text(text + "# mine\n", encoding="utf-8")
    answer(shared, 1)
    done = publish_labels(shared.root)
    assert not done.pushed
    assert "params.yaml" in done.sentence()
    assert "git pull --rebase" in done.why
    assert (shared.root / "params.yaml").read_text(encoding="utf-8") == text + "# mine\n"
    assert shared.git("show", "--format=", "--name-only", "HEAD") == FILE


def test_staged_changes_are_not_rebased(shared: Project, tmp_path: Path) -> None:
    commit(other := colleague(tmp_path), "theirs.txt", "new")
    other.git("push", "--quiet", "origin", "main")
    (shared.root / "staged.txt").write_text("mine", encoding="utf-8")
    shared.git("add", "staged.txt")
    answer(shared, 1)
    assert "staged.txt is staged here" in publish_labels(shared.root).why
    assert shared.git("status", "--porcelain") == "A  staged.txt"


def test_other_commits_are_not_pushed_with_the_answers(shared: Project) -> None:
    before = pushed(shared)
    commit(shared, "mine.txt", "not ready")
    answer(shared, 1)
    assert "1 other commits of yours" in publish_labels(shared.root).why
    assert pushed(shared) == before


def test_a_remote_that_is_away_loses_nothing(shared: Project, tmp_path: Path) -> None:
    (tmp_path / "remote.git").rename(tmp_path / "away.git")
    answer(shared, 1)
    done = publish_labels(shared.root)
    assert (done.answers, done.pushed) == (1, False)
    (tmp_path / "away.git").rename(tmp_path / "remote.git")
    assert publish_labels(shared.root).sentence() == "no new answers, pushed"
    assert pushed(shared) == shared.git("rev-parse", "HEAD")


def test_another_branch_is_committed_but_not_pushed(shared: Project) -> None:
    shared.git("checkout", "--quiet", "-b", "feature")
    answer(shared, 1)
    assert publish_labels(shared.root).sentence() == (
        "1 answer committed on feature; not pushed: unattended runs follow main; merge feature into it"
    )


def test_without_a_branch_nothing_is_committed(shared: Project) -> None:
    shared.git("checkout", "--quiet", "--detach")
    answer(shared, 1)
    with pytest.raises(GraftError, match=r"they are in data/labels\.csv"):
        publish_labels(shared.root)
    assert shared.git("status", "--porcelain") == f"M {FILE}"


def responds(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/") as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def test_when_the_page_ends_the_answers_are_committed_and_the_images_stay_in_the_pool(pooled: Project) -> None:
    words = [sys.executable, "-m", "graft.flows.cli", "label", "--commit", "--port", "0"]
    page = subprocess.Popen(words, cwd=pooled.root, env=pooled.environment(), stdout=subprocess.PIPE, text=True)
    assert page.stdout is not None
    found = re.search(r"http://127.0.0.1:\d+", page.stdout.readline())
    assert found
    wait_for(lambda: responds(found[0]))
    image_id = read_pool(pooled.root)["image_id"][0]
    append_answers(pooled.root / FILE, [Answer(image_id, "red", "ann", now(), "margin", "")])
    page.terminate()
    assert page.stdout.read().strip().startswith("1 answer committed on main; not pushed: there is no git remote")
    assert page.wait(60) == 0
    assert image_id in set(read_pool(pooled.root)["image_id"])
