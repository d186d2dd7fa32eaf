"""`graft classify`: labels and probabilities without any training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from projects import Project, draw
from timm.data import ImageNetInfo

from graft.flows.backbones.classify import Classifier, classifier_for, files_of
from graft.flows.runtime.locations import Place
from graft.tasks.common.backbones import network
from graft.tasks.common.backbones.spec import Form
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.errors import DataError, ParamsError, WeightsError, WeightsUnreachable
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import load

TINY = "test_efficientnet"


@pytest.fixture(scope="session")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """No project."""
    folder = tmp_path_factory.mktemp("nowhere")
    return Place(None, folder / "cache", folder / "data" / "weights")


@pytest.fixture(scope="session")
def classifier(nowhere: Place) -> Classifier:
    return classifier_for(TINY, "random", nowhere)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    for colour in range(3):
        draw(tmp_path / f"{colour}.png", colour, 0)
    return sorted(tmp_path.glob("*.png"))


def test_probabilities_are_those_of_the_network_with_its_classifier(
    classifier: Classifier, pictures: list[Path], nowhere: Place
) -> None:
    model = network.create(TINY, find_weights(TINY, "random", nowhere.weights), Form(output="logits"))
    transform = classifier.graph.spec.transform
    pixels = (
        torch.from_numpy(np.stack([load(file, None, transform, Reading()) for file in pictures])).permute(0, 3, 1, 2)
        / 255
    )
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transform.mean, transform.std))
    with torch.inference_mode():
        expected = model((pixels - mean) / std).softmax(1).numpy()

    for row, seen in zip(expected, classifier.look(pictures, 1000)):
        names = {synset: probability for synset, _, probability in seen.guesses}
        found = [names[synset] for synset in ImageNetInfo().label_names()]
        assert np.allclose(found, row, atol=1e-5)


def test_the_likeliest_come_first_and_no_more_than_asked(classifier: Classifier, pictures: list[Path]) -> None:
    (seen,) = classifier.look(pictures[:1], 3)

    probabilities = [probability for _, _, probability in seen.guesses]
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)


def test_labels_are_imagenets(classifier: Classifier) -> None:
    assert classifier.labels[0] == ("n01440764", "tench, Tinca tinca")
    assert len(classifier.labels) == classifier.graph.spec.dimension == 1000


def test_files_that_cannot_be_read_do_not_stop_the_others(classifier: Classifier, pictures: list[Path]) -> None:
    text, cut, gone = (pictures[0].with_name(name) for name in ("notes.txt", "cut.png", "gone.png"))
    text.write_text("no picture", encoding="utf-8")
    cut.write_bytes(pictures[0].read_bytes()[:600])

    seen = {Path(found.file).name: found for found in classifier.look([text, pictures[0], cut, gone], 1)}

    assert seen["notes.txt"].error == "not an image"
    assert seen["cut.png"].error.startswith("damaged")
    assert seen["gone.png"].error == "No such file or directory"
    assert seen["0.png"].guesses
    assert not seen["0.png"].error


def test_an_array_of_other_bands_is_called_that_and_not_damaged(classifier: Classifier, tmp_path: Path) -> None:
    np.save(tmp_path / "five.npy", np.zeros((8, 8, 5), np.uint8))

    (seen,) = classifier.look([tmp_path / "five.npy"], 1)

    assert seen.error == "5 bands (array), needed 3"


def test_keras_weights_without_the_classifier_are_not_taken(
    nowhere: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graft.tasks.common.backbones import fetch

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "KERAS_FILES", "http://127.0.0.1:9/")
    notop = tmp_path / "models" / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    notop.parent.mkdir()
    notop.write_bytes(b"weights")

    with pytest.raises(WeightsUnreachable) as refused:
        classifier_for("ResNet50", "keras", nowhere)

    assert f"keras-applications/resnet/{notop.name.replace('_notop', '')}" in refused.value.todo


def test_folders_are_walked_without_hidden_files(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "b" / "deep.png", 0, 0)
    draw(tmp_path / "a" / ".hidden" / "no.png", 0, 0)
    (tmp_path / "a" / "Thumbs.db").touch()
    draw(tmp_path / "one.png", 1, 0)

    files = files_of([tmp_path / "a", tmp_path / "one.png"])

    assert [file.name for file in files] == ["deep.png", "one.png"]


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images to classify") as refused:
        files_of([tmp_path])
    assert "name an image" in refused.value.todo


@pytest.mark.parametrize(
    ("backbone", "got"),
    [("vit_small_patch14_dinov2.lvd142m", "without a classifier"), ("mvitv2_base_cls.fb_inw21k", "19,168 outputs")],
)
def test_a_network_without_known_labels_is_refused(nowhere: Place, backbone: str, got: str) -> None:
    with pytest.raises(ParamsError, match="are not known") as refused:
        classifier_for(backbone, "random", nowhere)
    assert got in str(refused.value.got)


def test_an_unknown_network_is_answered_with_the_nearest(nowhere: Place) -> None:
    with pytest.raises(ParamsError, match="did you mean `resnet50`"):
        classifier_for("resnet5O", "random", nowhere)


def test_weights_without_a_classifier_are_refused(nowhere: Place, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    place = Place(None, nowhere.cache, tmp_path / "data" / "weights")
    state = network.create(TINY, find_weights(TINY, "random", place.weights)).state_dict()
    save_file(state, tmp_path / "body.safetensors")

    with pytest.raises(WeightsError, match="without a classifier"):
        classifier_for(TINY, "body.safetensors", place)


def test_random_weights_are_warned_of(nowhere: Place, capsys: pytest.CaptureFixture[str]) -> None:
    classifier_for(TINY, "random", nowhere)

    assert "warning" in capsys.readouterr().err


def test_graft_itself_brings_weights_with_a_classifier(nowhere: Place, pictures: list[Path]) -> None:
    (seen,) = classifier_for(None, None, nowhere).look(pictures[:1], 1000)

    assert sum(probability for _, _, probability in seen.guesses) == pytest.approx(1, abs=1e-3)
    assert seen.guesses[0][2] > 0.02, "random weights give every label about one in a thousand"


def test_the_command_uses_the_projects_backbone_and_prints_a_block_a_file(
    empty_project: Project, pictures: list[Path]
) -> None:
    done = empty_project.graft_here("classify", *map(str, pictures), "--top", "2")

    lines = done.stdout.splitlines()
    assert lines[::3] == [str(file) for file in pictures]
    assert all("%" in line for line in lines[1::3])
    assert f"{TINY} has random weights" in done.stderr


def test_the_network_is_shown_what_the_project_shows_its_own(nowhere: Place, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("features: {backbone: test_vit, crop: squash}", encoding="utf-8")

    found = classifier_for(TINY, "random", Place(tmp_path, nowhere.cache, nowhere.weights))

    assert found.graph.spec.transform.crop_mode == "squash"


def test_images_are_read_as_the_project_reads_them(nowhere: Place, tmp_path: Path) -> None:
    limits = {"max_pixels": 5_000, "max_aspect_ratio": 7, "max_seconds": 3.5, "max_memory_mb": 100}
    text = json.dumps({"features": {"backbone": TINY}, "preprocess": {**limits, "range": [0, 4095]}})
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    Image.new("RGB", (80, 80)).save(tmp_path / "large.png")

    found = classifier_for(TINY, "random", Place(tmp_path, nowhere.cache, nowhere.weights))

    assert found.reading == Reading(3, (0.0, 4095.0), Limits(**limits))
    (seen,) = found.look([tmp_path / "large.png"], 1)
    assert "`preprocess.max_pixels` allows 0.005 million" in seen.error


def test_an_automatic_range_is_the_one_that_preprocess_has_found(nowhere: Place, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("features: {backbone: test_efficientnet}", encoding="utf-8")
    place = Place(tmp_path, nowhere.cache, nowhere.weights)
    assert classifier_for(TINY, "random", place).reading == Reading()

    Reading(1, (0, 1023)).save(Paths(tmp_path).manifest)

    assert classifier_for(TINY, "random", place).reading == Reading(3, (0, 1023))


def test_outside_a_project_the_defaults_hold(classifier: Classifier) -> None:
    assert classifier.reading == Reading()


def test_the_command_names_bad_files_and_ends_with_2(empty_project: Project, pictures: list[Path]) -> None:
    done = empty_project.graft_here("classify", str(pictures[0]), "gone.png", "--json", check=False)

    assert done.returncode == 2
    assert "error: gone.png: No such file or directory" in done.stderr
    found = json.loads(done.stdout)
    assert len(found[0]["predictions"]) == 5
    assert set(found[0]["predictions"][0]) == {"synset", "label", "probability"}
    assert found[1] == {"file": "gone.png", "error": "No such file or directory"}


PROGRAM = """
import sys
from pathlib import Path
from graft.flows.backbones.classify import classifier_for
from graft.flows.runtime.locations import place_of
seen = list(classifier_for("test_efficientnet", "random", place_of(Path())).look([Path(sys.argv[1])], 1))
print(seen[0].guesses[0][0], "torch" in sys.modules, "timm" in sys.modules)
"""


def test_a_second_call_needs_neither_torch_nor_timm_nor_a_project(pictures: list[Path], tmp_path: Path) -> None:
    def call() -> list[str]:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "home")}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        words = [sys.executable, "-c", PROGRAM, str(pictures[0])]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    first, second = call(), call()

    assert first[1:] == ["True", "True"]
    assert second == [first[0], "False", "False"]
    assert (tmp_path / "home" / "graft" / "graphs").is_dir()


# With real weights


@pytest.mark.parametrize(("name", "label"), [("china.jpg", "palace"), ("flower.jpg", "daisy")])
def test_a_photograph_is_what_it_shows(name: str, label: str, nowhere: Place) -> None:
    from sklearn import datasets

    photograph = Path(datasets.__file__).parent / "images" / name
    (seen,) = classifier_for("tf_efficientnet_lite0", "package", nowhere).look([photograph], 1)
    assert seen.guesses[0][1] == label


def test_labels_are_not_given_for_other_classes_than_those_of_the_pre_training(tmp_path: Path, nowhere: Place) -> None:
    from bench.backbones import SEED, keras_shapes
    from bench.peers import keras_recipe

    with torch.device("meta"):
        model = timm.create_model("mobilenetv2_100", pretrained=False)
    layers = list(keras_recipe.weights(keras_shapes("MobileNetV2", model), SEED))
    classifier = ("predictions", [np.ones((1280, 7), np.float32), np.zeros(7, np.float32)])
    nowhere.weights.mkdir(parents=True, exist_ok=True)
    keras_recipe.write(nowhere.weights / "mine.h5", [*layers[:-1], classifier])
    with pytest.raises(WeightsError, match="labels of these weights") as refused:
        classifier_for("MobileNetV2", "keras:data/weights/mine.h5", nowhere)
    assert "7 classes" in str(refused.value.got)
