"""Two nights with a day between: images without a label come, a person labels some, the next night learns from them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hook import listening
from projects import Project, ask, draw, made_repository

from graft.flows.labelling.pool import read_pool
from graft.flows.versioning.dvc import raw_listing

COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Nights:
    """Attributes:
    results: the output of `graft run --unattended --json`.
    said: what `graft label apply --commit` printed.
    labelled: the images that the person labelled.
    raw: how many images the data had before.
    """

    project: Project
    folder: Path
    results: list[dict[str, Any]]
    said: dict[str, Any]
    labelled: set[str]
    raw: int
    notices: list[dict[str, Any]]

    def fresh(self) -> Project:
        """A clone of what is in the remote."""
        clone = Project(self.folder / "fresh")
        if not clone.root.exists():
            subprocess.run(["git", "clone", "--quiet", str(self.folder / "remote.git"), str(clone.root)], check=True)
            clone.dvc("pull", "--quiet")
        return clone


@pytest.fixture(scope="module")
def nights(
    finished: Project, tmp_path_factory: pytest.TempPathFactory, prefect_api: dict[str, str]
) -> Iterator[Nights]:
    folder = tmp_path_factory.mktemp("nights")
    with listening() as hook:
        project = finished.copy(folder / "project")
        inbox = folder / "inbox"
        project.set("retrain", notify=[hook.address], inbox=str(inbox), settle_seconds=0.0, ask=6)
        project.set("gate", margin=0.6)  # the test has a dozen images
        made_repository(project, folder)
        for number in range(12):
            draw(inbox / "unlabelled" / f"{COLOURS[number % 3]}-{number}.png", number % 3, 600 + number)
        (inbox / "unlabelled" / "film.png.part").write_bytes(b"the begin")
        raw, results = len(raw_listing(project.root)), [unattended(project, prefect_api)]
        said, labelled = label_by_day(project, folder)
        results.append(unattended(project, prefect_api))
        yield Nights(project, folder, results, said, labelled, raw, hook.got)


def unattended(project: Project, prefect_api: dict[str, str]) -> dict[str, Any]:
    said = project.graft("run", "--unattended", "--json", **prefect_api).stdout
    return json.loads(said[said.index("{\n") :])


def label_by_day(project: Project, folder: Path) -> tuple[dict[str, Any], set[str]]:
    """Ann fills in the table that the night has written, in a clone of her own."""
    clone = Project(folder / "ann")
    subprocess.run(["git", "clone", "--quiet", str(folder / "remote.git"), str(clone.root)], check=True)
    table = pd.read_csv(project.root / ".graft" / "label" / "next.csv")
    name_of = dict(read_pool(clone.root)[["image_id", "name"]].itertuples(index=False))
    table["label"] = [name_of[image_id].split("-")[0] for image_id in table["image_id"]]
    table.to_csv(folder / "answers.csv", index=False)
    said = clone.graft("label", "apply", str(folder / "answers.csv"), "--by", "ann", "--commit", "--json").stdout
    return json.loads(said), set(table["image_id"])


def test_new_images_without_a_label_are_nothing_to_do_and_the_pool_is_pushed(nights: Nights) -> None:
    one = nights.results[0]
    assert one["state"] == "Completed"
    assert one["message"].startswith("nothing to do")
    assert "pool: 12 images without a label came, 1 waiting: film.png.part" in one["message"]
    messages = nights.fresh().git("log", "--format=%s").splitlines()
    assert [message for message in messages if message.startswith("Pool")] == ["Pool: 12 new images without a label"]


def test_people_are_asked(nights: Nights) -> None:
    first = nights.notices[0]
    assert first["about"] == "labels"
    assert first["title"].endswith(": 6 pictures would help most")
    assert first["facts"] == {"images": 6, "waiting": 12}
    assert [notice["about"] for notice in nights.notices].count("labels") == 2
    assert nights.notices[-1]["facts"] == {"images": 6, "waiting": 6}


def test_the_answers_are_pushed_and_the_images_wait_for_the_night(nights: Nights) -> None:
    assert nights.said["published"] == "6 answers committed on main, pushed"
    assert nights.said["new"] == 6
    assert "taken_over" not in nights.said


def test_labelled_images_are_learned_from(nights: Nights) -> None:
    two, fresh = nights.results[1], nights.fresh()
    assert {stage["stage"] for stage in two["stages"] if stage["ran"]} >= {"preprocess", "features", "head"}
    listing = raw_listing(fresh.root)
    assert len(listing) == nights.raw + 6
    assert set(listing.values()) >= nights.labelled
    assert set(read_pool(fresh.root)["image_id"]).isdisjoint(nights.labelled)
    assert len(read_pool(fresh.root)) == 6
    manifest = pd.read_parquet(fresh.root / "data" / "manifest" / "manifest.parquet")
    rows = manifest[manifest["image_id"].isin(nights.labelled)]
    assert len(rows) == 6
    assert "train" in set(rows["split"])


def test_the_ledger_counts_the_labels(nights: Nights) -> None:
    lines = (nights.fresh().root / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    assert (last["version"], last["labels"]) == ("2", 6)
    assert "6: " in nights.project.graft("ledger").stdout


def test_the_flow_runs_page_lists_the_images(nights: Nights, prefect_api: dict[str, str]) -> None:
    artifacts = ask(prefect_api, lambda client: client.read_artifacts())
    lists = [json.loads(artifact.data) for artifact in artifacts if artifact.key == "to-label"]
    assert sorted(len(rows) for rows in lists) == [6, 6]
    assert set(lists[0][0]) == {"path", "image_id", "why", "guess", "probability"}


def test_the_checkout_is_not_touched(nights: Nights) -> None:
    assert not (nights.project.root / "data" / "pool").exists()
    assert nights.project.git("status", "--porcelain") == ""
