import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from graft.tasks.common.backbones import network
from graft.tasks.common.backbones.graph import _folder, backbone_graph, convert, is_whole, read_graph
from graft.tasks.common.backbones.network import eval_transform, state_sha256
from graft.tasks.common.backbones.spec import AS_TRAINED, Form, Spec
from graft.tasks.common.backbones.weights import WeightsSource
from graft.tasks.common.core.errors import ParamsError, WeightsError
from graft.tasks.common.engines.openvino import Engine

HUB = WeightsSource("hub", "test_efficientnet")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 160, 160, 3), dtype=np.uint8)


def torch_features(network, spec, pixels):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (spec.transform.mean, spec.transform.std))
    with torch.inference_mode():
        return network((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - mean) / std).numpy()


def test_a_graph_computes_what_the_network_computes_normalisation_included(tiny_graph, tiny_network, pixels):
    expected = torch_features(tiny_network, tiny_graph.spec, pixels)
    assert np.allclose(Engine(tiny_graph.xml)(pixels), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_spec_tells_dimension_parameters_and_weights(tiny_graph, tiny_network):
    spec = tiny_graph.spec
    assert spec.dimension == tiny_network.num_features
    assert spec.parameters == sum(parameter.numel() for parameter in tiny_network.parameters())
    assert spec.weights == "random: seed 0"
    assert spec.transform == eval_transform(tiny_network)


def test_weights_without_a_file_are_hashed_by_their_tensors(tiny_graph, tiny_network):
    assert tiny_graph.spec.weights_sha256 == state_sha256(tiny_network.state_dict().items())


def test_a_spec_survives_json(tiny_graph):
    assert Spec.from_dict(json.loads(json.dumps(dataclasses.asdict(tiny_graph.spec)))) == tiny_graph.spec


def test_a_graph_is_converted_once(tiny_graph, random_weights, tree_bytes, capsys):
    before = tree_bytes(tiny_graph.xml.parent)
    cache = tiny_graph.xml.parent.parent.parent
    assert backbone_graph("test_efficientnet", random_weights, cache) == tiny_graph
    assert "converting" not in capsys.readouterr().err
    assert tree_bytes(tiny_graph.xml.parent) == before


def test_a_conversion_that_was_killed_is_done_again(tiny_graph, random_weights, tmp_path, pixels):
    folder = tmp_path / "graphs" / tiny_graph.xml.parent.name
    folder.mkdir(parents=True)
    (folder / "graph.xml").write_text("half")
    again = backbone_graph("test_efficientnet", random_weights, tmp_path)
    assert again.spec == tiny_graph.spec
    assert np.array_equal(Engine(again.xml)(pixels), Engine(tiny_graph.xml)(pixels))


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40  # of a float's exponent, where it hurts most
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("harm", [flip, cut, os.unlink])
@pytest.mark.parametrize("name", ["graph.bin", "graph.xml", "spec.json", "hashes.json"])
def test_a_damaged_graph_is_converted_again(tiny_graph, random_weights, tmp_path, capsys, pixels, name, harm):
    folder = tmp_path / "graphs" / tiny_graph.xml.parent.name
    shutil.copytree(tiny_graph.xml.parent, folder)
    harm(folder / name)
    again = backbone_graph("test_efficientnet", random_weights, tmp_path)
    assert "is damaged" in capsys.readouterr().err
    assert is_whole(folder)
    assert again.spec == tiny_graph.spec
    assert np.array_equal(Engine(again.xml)(pixels), Engine(tiny_graph.xml)(pixels))


def test_a_damaged_graph_whose_weights_are_gone_is_not_used(converted, no_hub, tmp_path):
    flip(converted / "graph.bin")
    with pytest.raises(WeightsError):
        backbone_graph("test_efficientnet", HUB, tmp_path)


def test_an_unknown_backbone_leaves_no_graph(random_weights, tmp_path):
    with pytest.raises(ParamsError):
        backbone_graph("no_such_network", random_weights, tmp_path)
    assert not list(tmp_path.rglob("*.xml"))


def test_other_weights_are_another_graph(tmp_path, tiny_network, tiny_graph, pixels):
    import timm

    torch.manual_seed(3)
    other = timm.create_model("test_efficientnet", pretrained=False, num_classes=0).eval()
    source = WeightsSource("file", "x", None, "f" * 64)
    convert(other, network.spec_of(other, "test_efficientnet", source), tmp_path / "g")
    graph = read_graph(tmp_path / "g")
    assert graph.spec.weights_sha256 == "f" * 64
    assert not np.allclose(Engine(graph.xml)(pixels), Engine(tiny_graph.xml)(pixels), rtol=1e-2)


def test_conversion_leaves_the_network_as_it_was(tmp_path, tiny_network, tiny_graph, random_weights):
    before = state_sha256(tiny_network.state_dict().items())
    convert(tiny_network, tiny_graph.spec, tmp_path / "g")
    assert state_sha256(tiny_network.state_dict().items()) == before


def test_a_graph_takes_a_batch_of_any_size(tiny_graph, pixels):
    engine = Engine(tiny_graph.xml)
    assert [engine(pixels[:n]).shape for n in (1, 2, 3)] == [(n, tiny_graph.spec.dimension) for n in (1, 2, 3)]


@pytest.fixture
def converted(tiny_graph, tmp_path):
    """A cache with a graph that was made from the hub's weights; its folder."""
    return shutil.copytree(tiny_graph.xml.parent, _folder("test_efficientnet", HUB, tmp_path, AS_TRAINED))


WITHOUT_TORCH = """
import sys
from pathlib import Path
from graft.tasks.common.backbones.graph import backbone_graph
from graft.tasks.common.backbones.weights import find_weights
source = find_weights("test_efficientnet", "hub", Path("data/weights"))
print(backbone_graph("test_efficientnet", source, Path(sys.argv[1])).spec.weights_sha256)
print(sorted({"torch", "timm", "requests"} & set(sys.modules)))
"""


def test_a_graph_from_the_hub_is_found_without_network_torch_and_timm(converted, tiny_graph, repository, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, tmp_path],
        cwd=repository,
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [tiny_graph.spec.weights_sha256, "[]"], done.stderr


@pytest.mark.parametrize(
    "other", [{"output": "pooled"}, {"output": "logits"}, {"channels": 1}, {"image_size": (64, 64)}]
)
def test_a_graph_of_another_form_is_another_graph(other, random_weights, tmp_path):
    from graft.tasks.common.backbones.graph import _folder

    form = dataclasses.replace(AS_TRAINED, **other)
    assert len({_folder("test_efficientnet", random_weights, tmp_path, one) for one in (AS_TRAINED, form)}) == 2


def test_features_and_logits_of_the_same_weights_lie_in_one_cache(random_weights, tmp_path):
    features = backbone_graph("test_efficientnet", random_weights, tmp_path)
    logits = backbone_graph("test_efficientnet", random_weights, tmp_path, Form("logits"))
    assert (features.spec.dimension, logits.spec.dimension) == (256, 1000)


def test_a_graph_from_the_hub_honours_the_pin(converted, tiny_graph, tmp_path):
    pinned = dataclasses.replace(HUB, pinned=tiny_graph.spec.weights_sha256)
    assert backbone_graph("test_efficientnet", pinned, tmp_path).spec == tiny_graph.spec


def test_a_graph_of_other_weights_than_the_pinned_ones_is_refused(converted, tiny_graph, tmp_path):
    with pytest.raises(WeightsError, match="not the pinned ones") as refused:
        backbone_graph("test_efficientnet", dataclasses.replace(HUB, pinned="0" * 64), tmp_path)
    assert (refused.value.got, refused.value.allowed) == (tiny_graph.spec.weights_sha256, "0" * 64)
    assert str(converted) in refused.value.what


def test_a_graph_from_the_hub_records_the_hash_of_the_hubs_file_and_needs_it_once(hub, own_caches, tmp_path):
    graph = backbone_graph("test_efficientnet", HUB, tmp_path)
    assert graph.spec.weights_sha256 == hashlib.sha256(hub.content).hexdigest()
    assert graph.spec.weights == "hub: test_efficientnet"
    shutil.rmtree(own_caches / "hub")
    assert backbone_graph("test_efficientnet", HUB, tmp_path) == graph
    assert len(hub.server.served) == 1


def test_a_graph_of_keras_weights_is_found_by_their_hash_once_the_file_is_gone(tiny_graph, tmp_path):
    sha256 = tiny_graph.spec.weights_sha256
    was = WeightsSource("keras", "x.h5", tmp_path / "x.h5", sha256)
    shutil.copytree(tiny_graph.xml.parent, _folder("test_efficientnet", was, tmp_path, AS_TRAINED))
    gone = WeightsSource("keras", "x.h5", pinned=sha256)
    assert backbone_graph("test_efficientnet", gone, tmp_path).spec == tiny_graph.spec


def test_weights_that_cannot_be_fetched_leave_no_graph(no_hub, tmp_path):
    with pytest.raises(WeightsError):
        backbone_graph("test_efficientnet", HUB, tmp_path)
    assert not list(tmp_path.rglob("graphs/*"))
