"""Fine-tuning on the nodes of a real cluster: the same losses as on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cluster import Cluster, end
from projects import Project, wait_for

from graft.flows.cluster import training_member
from graft.flows.cluster.exchange import Folder, open_place
from graft.flows.cluster.exchange import Place as Reached
from graft.flows.cluster.fetch import Fetcher, NodeCache
from graft.flows.cluster.training import RayTraining
from graft.flows.cluster.training_files import TrainingFiles, images_in
from graft.flows.runtime.params import ComputeParams, load_params
from graft.tasks.common.core.errors import DataError, TransientError
from graft.tasks.common.core.paths import Paths
from graft.tasks.finetune import stage
from graft.tasks.finetune.order import Order
from graft.tasks.finetune.session import open_order

SETTINGS = {
    "mode": "on",
    "folds": 0,
    "refit": False,
    "epochs": 6,
    "patience": 99,
    "batch_size": 4,
    "learning_rate": 1e-4,  # larger ones blow rounding up from epoch to epoch
    "precision": "f32",
}


def tuned(root: Path, elsewhere: Any = None, **changes: Any) -> pd.DataFrame:
    """The curves of a training."""
    params = load_params(root / "params.yaml").finetune
    stage.run(params.model_validate({**params.model_dump(), **SETTINGS, **changes}), Paths(root), elsewhere)
    return pd.read_csv(root / "models" / "finetune" / "curves.csv")


def agree(one: pd.DataFrame, two: pd.DataFrame) -> None:
    assert len(one) == len(two) == SETTINGS["epochs"]
    assert np.allclose(one, two, rtol=0, atol=1e-4)


@pytest.fixture
def whole(ray_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, which has two nodes again afterwards."""
    yield ray_cluster
    while len(ray_cluster.nodes) < 2:
        ray_cluster.start()


def when_saved(store: Path, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Acts once, as soon as there is a checkpoint at the exchange and the submitter looks."""
    done: list[bool] = []
    get = Folder.get

    def look(folder: Folder, name: str) -> bytes | None:
        if not done and name.startswith("reports/") and list((store / "graft" / "finetune").glob("*/checkpoints/0*")):
            done.append(True)
            act()
        return get(folder, name)

    monkeypatch.setattr(Folder, "get", look)


@pytest.mark.drill
def test_a_node_that_is_killed_in_the_middle_changes_no_loss(
    project: Project, whole: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = tuned(project.copy(tmp_path / "alone").root, layers="all")
    store = tmp_path / "store"
    project.dvc("remote", "add", "--default", "store", str(store))
    when_saved(store, lambda: end(whole.nodes.pop()), monkeypatch)
    training = RayTraining(ComputeParams(engine="ray", address=whole.address), Paths(project.root))

    agree(tuned(project.root, training, layers="all", checkpoint_every=1e-9), alone)

    told = capfd.readouterr().err
    assert "2 processes on 2 nodes share each step's images" in told
    assert "a process was lost" in told
    assert "1 process on 1 node share" in told
    assert "epoch 6 of 6" in told
    assert not list((store / "graft" / "jobs").iterdir())
    assert not (store / "graft" / "finetune").exists() or not list((store / "graft" / "finetune").iterdir())
    wait_for(lambda: not members(whole), seconds=60)


def members(cluster: Cluster) -> list[Any]:
    from cluster import children, name_of

    found = (process for node in cluster.nodes for process in children(node))
    return [process for process in found if name_of(process).startswith("ray::Member")]


def test_an_order_has_all_that_a_node_needs_to_train_on_maps(project: Project, tmp_path: Path) -> None:
    alone = tuned(project.copy(tmp_path / "alone").root, views=2)
    exchange = open_place(Reached("", {"url": str(tmp_path / "exchange")}), {})

    def elsewhere(order: Order) -> None:
        files = TrainingFiles(exchange, order.checkpoint.stem)
        files.give(order, None)
        again, images = files.take(tmp_path / "project", tmp_path / "node")
        job = open_order(again, Paths(tmp_path / "project"), lambda path, _: Path("no image is needed") / path)
        assert job.checkpoint().name == order.checkpoint.name
        assert images == []
        job.run(again.checkpoint, None, saved=lambda course: files.give_checkpoint(again.checkpoint, course))
        assert len(files.checkpoints()) == 2
        files.take_checkpoint(files.checkpoints()[-1], order.checkpoint)

    agree(tuned(project.root, elsewhere, views=2), alone)


def test_a_node_fetches_an_image_when_it_is_read_and_has_few_of_them_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [f"{number}".encode() for number in range(4)]
    ids = [hashlib.md5(content).hexdigest() for content in contents]
    for name, content in zip(ids[:3], contents, strict=False):
        file = tmp_path / "remote" / "files" / "md5" / name[:2] / name[2:]
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    remote = open_place(Reached("", {"url": str(tmp_path / "remote")}), {})
    monkeypatch.setattr(training_member, "NEAR", 2)
    fetcher = Fetcher(remote, NodeCache(tmp_path / "cache", 10**6))
    places = {"md5": ids, "size": 1, "stored": ids, "offset": 0}  # as `Objects.of` names them
    pd.DataFrame(places).to_parquet(tmp_path / "images.parquet")
    file_of = training_member.NodeImages(images_in(tmp_path / "images.parquet"), fetcher, tmp_path / "near")

    assert [file_of("cat.png", name).read_bytes() for name in [*ids[:3], ids[0]]] == [*contents[:3], contents[0]]
    assert {file.name for file in (tmp_path / "near").iterdir()} == {ids[2], ids[0]}
    with pytest.raises(DataError, match=r"dog\.png cannot be read on a node[\s\S]*missing in the DVC remote"):
        file_of("dog.png", ids[3])
    with pytest.raises(TransientError, match=r"no sound map of dog\.png"):
        file_of("dog.png", "0" * 32)
