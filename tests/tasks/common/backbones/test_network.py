import hashlib
import io
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save

from graft.tasks.common.backbones import fetch, network
from graft.tasks.common.backbones.catalogue import entry_of
from graft.tasks.common.backbones.spec import Form
from graft.tasks.common.backbones.weights import WeightsSource, find_weights
from graft.tasks.common.core.errors import ParamsError, WeightsError, WeightsUnreachable, may_pass

TINY = "test_efficientnet"
RANDOM = WeightsSource("random", "seed 0")


def test_a_network_gives_pooled_features_and_no_class_scores(tiny_network):
    with torch.inference_mode():
        assert tiny_network(torch.zeros(2, 3, 160, 160)).shape == (2, tiny_network.num_features)


def test_a_network_is_in_evaluation_mode(tiny_network):
    assert not any(module.training for module in tiny_network.modules())


def test_random_weights_are_the_same_each_time(tiny_network):
    again = network.create(TINY, RANDOM)
    assert all(torch.equal(value, tiny_network.state_dict()[name]) for name, value in again.state_dict().items())


def test_an_unknown_backbone_is_answered_with_the_nearest_one():
    with pytest.raises(ParamsError, match="did you mean `resnet50`") as caught:
        network.create("resnet5O", RANDOM)
    assert caught.value.got == "resnet5O"


def test_a_local_file_is_loaded(tmp_path):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(5)
    state = timm.create_model(TINY, pretrained=False).state_dict()
    save_file(state, tmp_path / "x.safetensors")
    model = network.create(TINY, WeightsSource("file", "x.safetensors", tmp_path / "x.safetensors"))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_damaged_local_file_is_an_error_for_the_user(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError):
        network.create(TINY, WeightsSource("file", "x.safetensors", tmp_path / "x.safetensors"))


def test_a_hash_of_tensors_does_not_depend_on_their_order():
    state = {"a": torch.ones(2), "b": torch.zeros(3)}
    assert network.state_sha256(state.items()) == network.state_sha256(reversed(state.items()))


@pytest.mark.parametrize(
    "other", [{"a": torch.ones(2) * 2}, {"c": torch.ones(2)}, {"a": torch.ones(2), "b": torch.tensor(1)}], ids=str
)
def test_a_hash_of_tensors_changes_with_names_values_and_number(other):
    assert network.state_sha256(other.items()) != network.state_sha256({"a": torch.ones(2)}.items())


HUB = WeightsSource("hub", TINY)


def assert_loaded(model, state):
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_weights_come_from_the_hub(hub, tiny_weights):
    assert_loaded(network.create(TINY, HUB), tiny_weights(11))


def test_what_comes_from_the_hub_is_said_with_size_address_and_target(hub, capsys, own_caches):
    server, content = hub.server, hub.content
    network.create(TINY, HUB)
    said = capsys.readouterr().err
    assert f"fetching timm's weights of {TINY}: {len(content) / 1e6:,.1f} MB, from {server.address}{hub.path}" in said
    assert f" to {own_caches / 'hub'}" in said


def test_the_hash_of_a_file_from_the_hub_is_recorded(hub):
    source = network.fetched(TINY, HUB)
    sha256 = hashlib.sha256(hub.content).hexdigest()
    assert (source.sha256, source.file.read_bytes()) == (sha256, hub.content)
    assert network.spec_of(network.create(TINY, source), TINY, source).weights_sha256 == sha256


def test_what_the_hub_has_sent_is_not_fetched_again_nor_the_hub_asked(hub, monkeypatch):
    from huggingface_hub import constants

    first = network.fetched(TINY, HUB)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert network.fetched(TINY, HUB) == first
    assert len(hub.server.served) == 1


def test_the_hubs_own_client_finds_what_was_fetched(hub):
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    file = network.fetched(TINY, HUB).file
    found = try_to_load_from_cache(f"timm/{TINY}.r160_in1k", "model.safetensors", cache_dir=HF_HUB_CACHE)
    assert found == str(file)


def test_a_download_from_the_hub_that_broke_off_goes_on(hub, tiny_weights):
    server, content = hub.server, hub.content
    server.breaks_after = len(content) // 2
    with pytest.raises(WeightsUnreachable, match="could not be fetched") as broken:
        network.create(TINY, HUB)
    assert may_pass(broken.value)
    server.breaks_after = None
    assert_loaded(network.create(TINY, HUB), tiny_weights(11))
    assert [status for _, _, status, _ in server.served] == [200, 206]


def test_a_file_that_is_not_what_the_hub_says_it_is_is_refused(hub, tiny_weights):
    server = hub.server
    server.files[hub.path] = save(tiny_weights(12))
    with pytest.raises(WeightsError, match="not the expected file"):
        network.create(TINY, HUB)


def test_the_pinned_weights_of_the_hub_are_accepted(hub, tiny_weights):
    pinned = replace(HUB, pinned=hashlib.sha256(hub.content).hexdigest())
    assert_loaded(network.create(TINY, pinned), tiny_weights(11))


def test_weights_from_the_hub_that_are_not_the_pinned_ones_are_refused_and_removed(hub, own_caches):
    with pytest.raises(WeightsError, match="not the pinned ones") as refused:
        network.create(TINY, replace(HUB, pinned="0" * 64))
    assert (refused.value.got, refused.value.allowed) == (hashlib.sha256(hub.content).hexdigest(), "0" * 64)
    assert "model.safetensors" in refused.value.what
    assert not [file for file in own_caches.rglob("*") if file.is_file() and file.read_bytes() == hub.content]


def test_a_file_that_was_there_before_is_refused_but_not_removed(hub):
    file = network.fetched(TINY, HUB).file
    with pytest.raises(WeightsError, match="not the pinned ones"):
        network.create(TINY, replace(HUB, pinned="0" * 64))
    assert file.read_bytes() == hub.content


def test_a_pickle_from_the_hub_is_refused_and_not_run(hub, tmp_path):
    server = hub.server
    path = hub.path.replace("model.safetensors", "pytorch_model.bin")
    server.files = {path: pickle.dumps({"a": Code(tmp_path / "ran")})}
    server.etags = {path: '"0123456789abcdef"'}
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        network.create(TINY, HUB)
    assert not (tmp_path / "ran").exists()


class Code:
    """Unpickling this would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_a_torch_file_of_tensors_will_do_where_the_hub_has_no_safetensors(hub, tiny_weights):
    server = hub.server
    path = hub.path.replace("model.safetensors", "pytorch_model.bin")
    content = io.BytesIO()
    torch.save(tiny_weights(11), content)
    server.files, server.etags = {path: content.getvalue()}, {path: '"0123456789abcdef"'}
    assert_loaded(network.create(TINY, HUB), tiny_weights(11))


def test_weights_of_another_network_from_the_hub_are_an_error_for_the_user(hub):
    server = hub.server
    server.files[hub.path] = save({"a": torch.ones(2)})
    server.etags[hub.path] = '"0123456789abcdef"'
    with pytest.raises(WeightsError, match="are not those of test_efficientnet"):
        network.create(TINY, HUB)


@pytest.fixture
def at_an_address(server, monkeypatch, tiny_weights):
    """timm has the weights of the tiny network at an address only, in a torch file: (server, path)."""
    content = io.BytesIO()
    torch.save({"state_dict": tiny_weights(11)}, content)
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    path = f"/releases/tiny-{sha256[:9]}.pth"
    server.files[path], server.etags[path] = content.getvalue(), '"x"'
    config = SimpleNamespace(url=server.address + path, hf_hub_id=None, hf_hub_filename=None)
    monkeypatch.setattr(network.timm.models, "get_pretrained_cfg", lambda _: config)
    return server, path


def test_weights_that_timm_has_at_an_address_only_come_from_there(at_an_address, own_caches):
    server, path = at_an_address
    source = network.fetched(TINY, HUB)
    assert source.file == own_caches / "torch" / "hub" / "checkpoints" / path.rsplit("/", 1)[1]
    assert source.file.read_bytes() == server.files[path]
    network.fetched(TINY, HUB)
    assert len(server.served) == 1


def test_the_hash_in_the_name_of_such_a_file_is_checked(at_an_address, own_caches):
    server, path = at_an_address
    server.files[path] += b"!"
    with pytest.raises(WeightsError, match="not the expected file"):
        network.fetched(TINY, HUB)
    assert not list(own_caches.rglob("*.pth*"))


def test_a_hub_that_cannot_be_reached_is_answered_with_the_three_ways_to_get_weights(no_hub):
    with pytest.raises(WeightsError, match="could not be fetched from timm's hub") as refused:
        network.create(TINY, HUB)
    assert "data/weights/test_efficientnet.safetensors" in refused.value.todo
    assert "features.weights: package" in refused.value.todo
    assert "with a network" in refused.value.todo


def test_a_hub_that_does_not_answer_may_be_tried_again(hub, monkeypatch):
    from huggingface_hub import constants

    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(WeightsError) as refused:
        network.create(TINY, HUB)
    assert may_pass(refused.value)


def test_that_the_hub_has_no_such_weights_is_an_answer(hub):
    hub.server.files.clear()
    with pytest.raises(WeightsError, match="404") as refused:
        network.create(TINY, HUB)
    assert not may_pass(refused.value)


def test_a_hub_that_must_not_be_asked_is_not_tried_again(no_hub):
    with pytest.raises(WeightsError) as refused:
        network.create(TINY, HUB)
    assert not may_pass(refused.value)


def test_a_network_of_which_timm_has_no_weights_is_answered_with_the_ways_to_get_some():
    with pytest.raises(WeightsError, match="has no weights of resnetv2_152") as refused:
        network.create("resnetv2_152", WeightsSource("hub", "resnetv2_152"))
    assert "data/weights/resnetv2_152.safetensors" in refused.value.todo


@pytest.mark.parametrize("source", [RANDOM, WeightsSource("hub", "resnet50.nonsense")], ids=["random", "hub"])
def test_a_tag_that_timm_does_not_know_is_answered_with_those_that_it_knows(source):
    with pytest.raises(WeightsError, match="does not have these weights") as refused:
        network.create("resnet50.nonsense", source)
    assert "resnet50.tv_in1k" in refused.value.allowed


KERAS_PATH = "/keras/nasnet/NASNet-mobile.h5"
KERAS = WeightsSource("keras", "NASNet-mobile.h5")


@pytest.fixture
def keras_server(server, monkeypatch):
    """A stand-in for Keras' server, which has one network's weights."""
    content = b"weights of nasnet" * 1000
    server.files[KERAS_PATH], server.etags[KERAS_PATH] = content, '"x"'
    monkeypatch.setattr(fetch, "KERAS_FILES", f"{server.address}/keras/")
    entry = entry_of("nasnetamobile")
    published = replace(entry, keras=replace(entry.keras, md5=hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(fetch, "entry_of", lambda _: published)
    return server


def test_keras_weights_come_into_keras_own_cache(keras_server, own_caches, capsys):
    source = fetch.fetched("nasnetamobile", KERAS)
    assert source.file == own_caches / "keras" / "models" / "nasnet_mobile.h5", "as Keras itself calls it there"
    assert source.sha256 == hashlib.sha256(keras_server.files[KERAS_PATH]).hexdigest()
    assert "NASNet-mobile.h5" in capsys.readouterr().err


def test_keras_weights_that_were_fetched_are_found_without_a_network(keras_server, own_caches):
    source = fetch.fetched("nasnetamobile", KERAS)
    again = find_weights("nasnetamobile", "auto", own_caches / "data" / "weights")
    assert (again.kind, again.where, again.file, again.sha256) == ("keras", KERAS.where, source.file, source.sha256)


def test_keras_weights_with_another_hash_than_keras_publishes_are_refused(keras_server, own_caches):
    keras_server.files[KERAS_PATH] = b"other"
    with pytest.raises(WeightsError, match="not the expected file"):
        fetch.fetched("nasnetamobile", KERAS)
    assert not list(own_caches.rglob("*.h5*"))


def test_keras_weights_that_are_not_the_pinned_ones_are_refused_and_removed(keras_server, own_caches):
    with pytest.raises(WeightsError, match="not the pinned ones"):
        fetch.fetched("nasnetamobile", replace(KERAS, pinned="0" * 64))
    assert not list(own_caches.rglob("*.h5*"))


def test_keras_server_that_is_not_there_is_answered_with_name_address_and_places(monkeypatch, own_caches):
    monkeypatch.setattr(fetch, "KERAS_FILES", "http://127.0.0.1:9/")
    with pytest.raises(WeightsError) as refused:
        fetch.fetched("nasnetamobile", KERAS)
    assert "https://storage.googleapis.com/tensorflow/keras-applications/nasnet/NASNet-mobile.h5" in refused.value.todo
    assert "data/weights/NASNet-mobile.h5" in refused.value.todo
    assert str(own_caches / "keras" / "models" / "nasnet_mobile.h5") in refused.value.todo
    assert "with a network" in refused.value.todo


def test_a_network_with_its_classifier_gives_its_logits():
    model = network.create(TINY, RANDOM, Form(output="logits"))
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 160, 160)).shape == (2, 1000)
    assert network.spec_of(model, TINY, RANDOM, Form(output="logits")).dimension == 1000


def test_weights_without_the_classifier_have_no_logits_to_give(tmp_path):
    state = network.create(TINY, RANDOM).state_dict()
    (tmp_path / "x.safetensors").write_bytes(save(state))
    with pytest.raises(WeightsError, match="without a classifier") as refused:
        network.create(TINY, WeightsSource("file", "x", tmp_path / "x.safetensors"), Form(output="logits"))
    assert refused.value.got == "file: x"


def test_a_network_that_never_had_a_classifier_has_no_logits_either():
    with pytest.raises(WeightsError, match="without a classifier"):
        network.create("vit_small_patch14_dinov2.lvd142m", RANDOM, Form(output="logits"))


# Pooled maps

HIDDEN = "mobilenetv3_small_050"
"""A small network whose classifier has a hidden layer."""


def test_pooled_features_are_the_means_of_the_last_maps():
    import timm

    pooled = network.create(HIDDEN, RANDOM, Form("pooled"))
    torch.manual_seed(0)
    whole = timm.create_model(HIDDEN).eval()
    x = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(pooled(x), whole.forward_features(x).mean((2, 3)))


def test_pooled_features_do_without_the_hidden_layers_of_the_classifier():
    pooled, before = (network.create(HIDDEN, RANDOM, Form(output)) for output in ("pooled", "pre_logits"))
    count, hidden = (sum(p.numel() for p in m.parameters()) for m in (pooled, before.conv_head))
    assert network.spec_of(pooled, HIDDEN, RANDOM, Form("pooled")).parameters == count
    assert count + hidden == sum(p.numel() for p in before.parameters())


def test_maps_with_their_features_last_are_pooled_over_their_places():
    pooled = network.create("test_mambaout", RANDOM, Form("pooled"))
    assert network.spec_of(pooled, "test_mambaout", RANDOM, Form("pooled")).dimension == pooled.network.num_features


def test_a_network_without_maps_has_no_pooled_features():
    with pytest.raises(ParamsError, match="test_vit does not have") as refused:
        network.create("test_vit", RANDOM, Form("pooled"))
    assert "pre_logits" in refused.value.todo


# Files without a classifier


@pytest.fixture
def headless(tmp_path, tiny_network):
    """A file with the tensors of a whole tiny network but its classifier's."""
    from safetensors.torch import save_file

    save_file(tiny_network.state_dict(), tmp_path / "headless.safetensors")
    return WeightsSource("file", "headless.safetensors", tmp_path / "headless.safetensors", "seed")


def test_a_file_without_a_classifier_is_good_for_features(headless, tiny_network):
    state = network.create(TINY, headless).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in tiny_network.state_dict().items())


def test_a_file_without_a_classifier_has_no_labels_to_give(headless):
    with pytest.raises(WeightsError, match="without a classifier"):
        network.create(TINY, headless, Form("logits"))
