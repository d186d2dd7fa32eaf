"""The whole pipeline on other images than those of pre-training: grey, with any bands, of any size, or not cropped."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.tasks.common.backbones.spec import Form
from graft.tasks.common.candidates import read_candidates
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.core.record import Record
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import read_manifest
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import EvalTransform, load
from graft.tasks.register.serving import ImageClassifier

LEVELS = {"dark": 60, "middle": 120, "bright": 190}


def noisy(level, seed, bands):
    """(40, 32, bands) of uint8; no other level and seed gives the same."""
    shift = np.random.default_rng([level, seed]).integers(-30, 31, (40, 32, bands))
    return (level + shift + 4 * np.arange(bands)).clip(0, 255).astype(np.uint8)


def write_grey(file, level, seed):
    Image.fromarray(noisy(level, seed, 1)[..., 0]).save(file.with_suffix(".png"))


def write_rgba(file, level, seed):
    Image.fromarray(noisy(level, seed, 4), "RGBA").save(file.with_suffix(".png"))


def write_array(file, level, seed):
    np.save(file.with_suffix(".npy"), noisy(level, seed, 5))


KINDS = {
    "grey": (write_grey, 1, {"image_size": 96}),
    "RGBA": (
        write_rgba,
        4,
        {"image_size": 64, "crop": "squash", "backbone": "test_vit", "output": "class_and_patch_mean"},
    ),
    "five bands": (write_array, 5, {"image_size": [64, 96], "views": 1, "crop": "border"}),
}


def fill(raw, write, each=8):
    for name, level in LEVELS.items():
        (raw / name).mkdir(parents=True)
        for seed in range(each):
            write(raw / name / f"{seed:02}", level, seed)


@dataclass(frozen=True)
class Project:
    """Every stage has run on it. For reading only."""

    paths: Paths
    channels: int
    size: tuple[int, int]
    crop: str
    output: str
    records: dict[str, Record]


@pytest.fixture(scope="module", params=KINDS)
def project(request, tmp_path_factory, run_stage):
    """One of each kind."""
    write, channels, features = KINDS[request.param]
    paths = Paths(tmp_path_factory.mktemp("other"))
    fill(paths.raw, write)
    tuning = {"mode": "on", "epochs": 1, "batch_size": 8, "precision": "f32"}
    changes = {"preprocess": {"channels": channels}, "features": features, "finetune": tuning}
    records = {stage: run_stage(stage, paths, **changes.get(stage, {})) for stage in STAGES}
    size = features["image_size"]
    size = (size, size) if isinstance(size, int) else tuple(size)
    crop, output = features.get("crop", "center"), features.get("output", "pre_logits")
    return Project(paths, channels, size, crop, output, records)


def test_the_manifest_says_as_how_many_channels_the_images_are_read(project):
    manifest = read_manifest(project.paths.manifest)
    assert list(manifest["channels"]) == [project.channels] * 3 * 8
    assert Reading.load(project.paths.manifest).channels == project.channels


def test_the_fingerprint_is_of_images_of_this_size_and_number_of_channels(project):
    pack = read_feature_set(project.paths.features)
    transform = pack.fingerprint["transform"]
    assert pack.channels == project.channels
    assert (transform["height"], transform["width"], len(transform["mean"])) == (*project.size, project.channels)
    assert transform["crop_mode"] == project.crop


def test_a_row_is_what_the_engine_gives_for_its_image(project):
    pack, graph = read_feature_set(project.paths.features), frozen_graph(project)
    engine = Engine(graph.xml)
    assert (engine.height, engine.width, engine.channels) == (*project.size, project.channels)
    file, image_id = project.paths.raw / pack.index["path"].iloc[5], pack.index["image_id"].iloc[5]
    pixels = load(file, image_id, graph.spec.transform, pack.reading)
    expected = engine(pixels[None])[0]
    assert np.allclose(pack.stored_ND[5], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def frozen_graph(project):
    candidates, _ = read_candidates(project.paths)
    return candidates["head"].graphs(read_feature_set(project.paths.features), project.paths)[0]


def test_what_is_evaluated_is_better_than_chance(project):
    assert project.records["evaluate"].metrics["accuracy"] > 0.5


def test_the_report_shows_what_the_network_looks_at(project):
    with Image.open(project.paths.report / "saliency.png") as picture:
        assert np.asarray(picture).std() > 1


def test_the_package_agrees_with_evaluate(project):
    assert project.records["register"].metrics["largest_difference"] < 1e-4


def test_the_package_takes_paths_bytes_and_base64_alike(project):
    seen = pd.read_parquet(project.paths.report / "predictions.parquet").head(2)
    files = [project.paths.raw / path for path in seen["path"]]
    model = ImageClassifier(project.paths.package)
    forms = (
        files,
        [file.read_bytes() for file in files],
        [base64.b64encode(file.read_bytes()).decode() for file in files],
    )
    expected = seen[[f"p_{name}" for name in model.classes]].to_numpy()
    for images in forms:
        answers = model.predict(images)
        assert np.allclose([[answer["probabilities"][name] for name in model.classes] for answer in answers], expected)


def test_the_package_refuses_an_image_of_other_bands(project):
    model = ImageClassifier(project.paths.package)
    stream = io.BytesIO()
    np.save(stream, noisy(90, 0, 7))
    with pytest.raises(ValueError, match=rf"input 0 .*7 bands \(array\), needed {project.channels}"):
        model.predict([stream.getvalue()])


def test_the_package_shows_the_network_what_the_stage_features_does(project):
    facts = read_json(project.paths.package / "package.json")
    assert EvalTransform.from_dict(facts["transform"]) == frozen_graph(project).spec.transform
    assert facts["transform"]["crop_mode"] == project.crop


def test_fine_tuning_keeps_size_channels_and_crop(project):
    candidates, _ = read_candidates(project.paths)
    tuned = candidates["finetune"].tuned.spec
    assert tuned.form == Form(project.output, project.channels, project.size)
    assert tuned.transform == frozen_graph(project).spec.transform
    assert tuned.transform.crop_mode == project.crop
