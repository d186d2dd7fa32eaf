import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save

from tasks.common.backbones import network
from tasks.common.backbones.spec import Form
from tasks.common.backbones.weights import WeightsSource
from tasks.common.errors import ParamsError, WeightsError, may_pass

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


PROGRAM = """
from tasks.common.backbones import network
from tasks.common.backbones.spec import Form
from tasks.common.backbones.weights import WeightsSource
from tasks.common.errors import WeightsError, may_pass
try:
    model = network.create("test_efficientnet", WeightsSource("hub", "test_efficientnet"))
except WeightsError as error:
    print("refused", error.todo, "may pass:", may_pass(error))
else:
    print("loaded", network.state_sha256(model.state_dict().items()))
"""


@pytest.fixture
def ask_hub(repository, tmp_path):
    """Creates the network from the hub in a process whose hub is `endpoint`; gives what it prints."""

    def ask(endpoint, **settings):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=repository,
            env={**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), **settings},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return ask


@pytest.fixture
def hub():
    """A stand-in for timm's hub that serves a tiny network's weights: (address, what the backbone's hash should be)."""
    import timm

    torch.manual_seed(11)
    model = timm.create_model(TINY, pretrained=False)
    content = save(model.state_dict())
    model.reset_classifier(0)

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            known = self.path.partition("?")[0].endswith("/resolve/main/model.safetensors")
            self.send_response(200 if known else 404)
            if known:
                self.send_header("ETag", '"0123456789abcdef"')
                self.send_header("X-Repo-Commit", "a" * 40)
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", str(len(content) if known else 0))
            self.end_headers()
            return known

        def do_GET(self):
            if self.do_HEAD():
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", network.state_sha256(model.state_dict().items())
    server.shutdown()
    server.server_close()
    thread.join()


def test_weights_come_from_the_hub(hub, ask_hub):
    address, expected = hub
    assert ask_hub(address).splitlines()[-1] == f"loaded {expected}"


def test_a_hub_that_cannot_be_reached_is_answered_with_the_three_ways_to_get_weights(ask_hub):
    answer = ask_hub("http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert answer.startswith("refused")
    assert "data/weights/test_efficientnet.safetensors" in answer
    assert "features.weights: package" in answer
    assert "with a network" in answer


def test_a_hub_that_does_not_answer_may_be_tried_again(monkeypatch):
    import httpx2

    monkeypatch.setattr(network.timm, "create_model", lambda *_, **__: httpx2.get("http://127.0.0.1:9"))
    with pytest.raises(WeightsError) as refused:
        network.create("test_efficientnet", WeightsSource("hub", "test_efficientnet"))
    assert may_pass(refused.value)


def test_that_the_hub_has_no_such_weights_is_an_answer(hub, monkeypatch):
    import httpx2

    address, _ = hub
    monkeypatch.setattr(
        network.timm, "create_model", lambda *_, **__: httpx2.get(f"{address}/nothing").raise_for_status()
    )
    with pytest.raises(WeightsError, match="404") as refused:
        network.create("test_efficientnet", WeightsSource("hub", "test_efficientnet"))
    assert not may_pass(refused.value)


def test_a_hub_that_must_not_be_asked_is_not_tried_again(ask_hub):
    assert ask_hub("http://127.0.0.1:9", HF_HUB_OFFLINE="1").splitlines()[-1].endswith("may pass: False")


def test_a_network_with_its_classifier_gives_its_logits():
    model = network.create(TINY, RANDOM, Form(output="logits"))
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 160, 160)).shape == (2, 1000)
    assert network.spec_of(model, TINY, RANDOM, Form(output="logits")).dimension == 1000


def test_weights_without_the_classifier_have_no_logits_to_give(tmp_path):
    from safetensors.torch import save_file

    state = network.create(TINY, RANDOM).state_dict()
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="without a classifier") as refused:
        network.create(TINY, WeightsSource("file", "x", tmp_path / "x.safetensors"), Form(output="logits"))
    assert refused.value.got == "file: x"


def test_a_network_that_never_had_a_classifier_has_no_logits_either():
    with pytest.raises(WeightsError, match="without a classifier"):
        network.create("vit_small_patch14_dinov2.lvd142m", RANDOM, Form(output="logits"))


def test_an_unknown_tag_is_no_model():
    with pytest.raises(ParamsError, match="not a timm model"):
        network.create("resnet50.no_such_tag", RANDOM)
