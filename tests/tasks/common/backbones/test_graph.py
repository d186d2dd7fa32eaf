import dataclasses
import json

import numpy as np
import pytest
import torch

from tasks.common.backbones import network
from tasks.common.backbones.graph import backbone_graph, convert, read_graph
from tasks.common.backbones.network import eval_transform, state_sha256
from tasks.common.backbones.spec import Spec
from tasks.common.backbones.weights import WeightsSource
from tasks.common.engine import Engine
from tasks.common.errors import ParamsError


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
