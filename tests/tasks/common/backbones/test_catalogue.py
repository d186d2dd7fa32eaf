import pytest
import timm

from graft.flows.backbones.anatomy import facts_of
from graft.tasks.common.backbones.catalogue import CATALOGUE, entry_of, timm_name
from graft.tasks.common.core.errors import ParamsError

IN_TIMM = [entry for entry in CATALOGUE if timm.is_model(entry.timm)]


def named(entry):
    return entry.name


@pytest.fixture(scope="session")
def facts():
    """Keras name -> what timm says of the network, built without numbers."""
    return {entry.name: facts_of(entry.pretrained) for entry in IN_TIMM}


def test_the_catalogue_has_the_eighteen_networks_of_the_table_once_each():
    assert len({entry.name for entry in CATALOGUE}) == len({entry.timm for entry in CATALOGUE}) == 18


@pytest.mark.parametrize("entry", CATALOGUE, ids=named)
def test_a_network_is_found_by_either_name_with_and_without_a_tag(entry):
    assert entry_of(entry.name) is entry_of(entry.name.upper()) is entry_of(entry.timm) is entry
    assert entry_of(f"{entry.timm}.any_tag") is entry


@pytest.mark.parametrize("entry", IN_TIMM, ids=named)
def test_its_tags_are_timms_and_missing_only_where_timm_has_no_weights(entry):
    tags = {name.partition(".")[2] for name in timm.list_pretrained(f"{entry.timm}.*")}
    assert {entry.frozen, entry.tuned} <= (tags or {""})


@pytest.mark.parametrize("entry", CATALOGUE, ids=named)
def test_timms_accuracies_are_there_for_each_of_its_tags(entry):
    assert set(entry.published) == {entry.frozen, entry.tuned} - {""}


@pytest.mark.parametrize("entry", CATALOGUE, ids=named)
def test_accuracies_are_percentages_of_the_same_network(entry):
    for top1, top5 in [(entry.top1, entry.top5), *entry.published.values()]:
        assert 70 < top1 < top5 < 97
        assert abs(top1 - entry.top1) < 7


@pytest.mark.parametrize("entry", CATALOGUE, ids=named)
def test_megabytes_are_four_bytes_a_parameter(entry):
    assert entry.megabytes == pytest.approx(entry.parameters * 4e6 / 2**20, rel=0.15)


@pytest.mark.parametrize("entry", IN_TIMM, ids=named)
def test_timms_network_has_the_tables_number_of_parameters(entry, facts):
    """Keras counts the statistics of batch norm as well, which are up to two in a hundred."""
    assert facts[entry.name]["parameters"] / 1e6 == pytest.approx(entry.parameters, rel=0.02)


@pytest.mark.parametrize("entry", IN_TIMM, ids=named)
def test_timm_knows_the_input_and_the_licence(entry, facts):
    assert facts[entry.name]["trained"][0] in (224, 299, 331)
    assert facts[entry.name]["licence"] or not entry.frozen
    assert facts[entry.name]["labels"] == 1000


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [
        ("ResNet50", "auto", "resnet50.tv_in1k"),
        ("resnet50.a1h_in1k", "auto", "resnet50.a1h_in1k"),
        ("tf_efficientnet_lite0", "auto", "tf_efficientnet_lite0"),
        ("ResNet152V2", "random", "resnetv2_152"),
        ("ResNet50", "keras", "resnet50"),
    ],
)
def test_a_name_and_the_weights_give_timms_name(backbone, weights, expected):
    assert timm_name(backbone, weights) == expected


def test_keras_has_weights_of_its_own_networks_only():
    with pytest.raises(ParamsError, match="eighteen networks only") as refused:
        timm_name("convnext_atto", "keras")
    assert "ResNet50" in refused.value.allowed
