"""Several backbones over the images of a project whose pipeline has run."""

from collections import Counter

import numpy as np
import pytest

from graft.flows.studies import shared_decode
from graft.flows.studies.shared_decode import Cost, Job, extract, measure, read
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.files import md5
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.engines import one_decode
from graft.tasks.common.feature_cache.segments import FeatureCache, ids_of
from graft.tasks.common.images.reading import Reading
from graft.tasks.features.extractor import choose_extractor
from graft.tasks.features.params import FeaturesParams

BACKBONES = ("test_efficientnet", "test_resnet", "test_convnext")


@pytest.fixture(scope="module")
def ran(finished, tmp_path_factory):
    """For reading only."""
    return Paths(finished.copy(tmp_path_factory.mktemp("ran") / "project").root)


@pytest.fixture(scope="module")
def extractors(ran):
    def choose(backbone):
        params = FeaturesParams(backbone=backbone, weights="random", precision="f32")
        return choose_extractor(params, 3, ran, lambda spec: [])

    return {backbone: choose(backbone) for backbone in BACKBONES}


@pytest.fixture
def job(extractors, tmp_path):
    """job(backbone, folder) with a cache of its own."""

    def make(backbone=BACKBONES[0], folder="cache"):
        extractor = extractors[backbone]
        return Job(extractor, FeatureCache(tmp_path / folder / backbone, extractor.spec.dimension))

    return make


@pytest.fixture(scope="module")
def files(ran):
    return sorted(ran.raw.rglob("*.png"))


@pytest.fixture(scope="module")
def ids(files):
    return ids_of([md5(file) for file in files])


def test_each_file_is_decoded_once_for_all_backbones(job, files, ids, decoded):
    extract([job(backbone) for backbone in BACKBONES], ids, files, Reading(), 2)
    assert decoded == Counter(files)


def test_one_pass_gives_the_same_bytes_as_a_pass_for_each(job, files, ids, monkeypatch):
    monkeypatch.setattr(shared_decode, "block_size", lambda geometries: 16)  # several blocks, as with many images
    at_once = [job(backbone, "at once") for backbone in BACKBONES]
    extract(at_once, ids, files, Reading(), 2)
    for one in at_once:
        alone = job(one.extractor.spec.backbone, "alone")
        extract([alone], ids, files, Reading(), 2)
        assert read(one, ids, files, Reading()).tobytes() == read(alone, ids, files, Reading()).tobytes()


def test_it_gives_what_the_stage_has_computed(ran, tmp_path, files, ids):
    from graft.tasks.common.data.feature_set import read_feature_set

    params = FeaturesParams(backbone=BACKBONES[0], weights="random")  # in the precision that the stage has chosen
    extractor = choose_extractor(params, 3, ran, lambda spec: [])
    pack, mine = read_feature_set(ran.features), Job(extractor, FeatureCache(tmp_path, extractor.spec.dimension))
    extract([mine], ids, files, Reading())
    places = [files.index(ran.raw / path) for path in pack.index["path"]]
    assert np.allclose(read(mine, ids, files, Reading())[places], pack.stored_ND, rtol=1e-4, atol=1e-6)


def test_engines_of_both_kinds_take_part_in_one_pass(job, ran, tmp_path, files, ids, decoded):
    params = FeaturesParams(backbone=BACKBONES[0], weights="random", engine="torch", precision="f32")
    extractor = choose_extractor(params, 3, ran, lambda spec: [])
    with_torch = Job(extractor, FeatureCache(tmp_path / "torch", extractor.spec.dimension))
    with_openvino = job()
    extract([with_torch, with_openvino], ids, files, Reading())
    assert decoded == Counter(files)
    a_ND, b_ND = (read(one, ids, files, Reading()) for one in (with_torch, with_openvino))
    assert np.allclose(a_ND, b_ND, rtol=1e-3, atol=1e-4 * np.abs(a_ND).max())


def test_what_a_cache_holds_is_not_computed_again(job, files, ids, decoded):
    extract([job()], ids[:20], files[:20], Reading())
    decoded.clear()
    again, other = job(), job(BACKBONES[1])
    extract([again, other], ids, files, Reading())
    assert (again.cost.images, other.cost.images) == (22, 42)
    assert decoded == Counter(files)


def test_nothing_is_decoded_when_every_cache_is_full(job, files, ids, decoded):
    extract([job()], ids, files, Reading())
    decoded.clear()
    extract([job()], ids, files, Reading())
    assert not decoded


def test_a_file_that_occurs_twice_is_computed_once(job, files, ids):
    twice = job()
    extract([twice], np.concatenate([ids, ids]), [*files, *files], Reading())
    assert twice.cost.images == len(files)


def test_a_backbone_that_fails_does_not_stop_the_others(job, files, ids, monkeypatch):
    bad, good = job(), job(BACKBONES[1])
    monkeypatch.setattr(bad.cache, "add", lambda ids, batch: (_ for _ in ()).throw(GraftError("no numbers")))
    extract([bad, good], ids, files, Reading())
    assert str(bad.failure) == "no numbers"
    assert good.failure is None
    assert good.cost.images == len(files)


def test_a_damaged_segment_is_computed_again(job, files, ids):
    mine = job()
    extract([mine], ids, files, Reading())
    before = read(mine, ids, files, Reading())
    (segment,) = mine.cache.folder.glob("*.safetensors")
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    assert np.array_equal(read(mine, ids, files, Reading()), before)


def test_an_image_that_has_gone_is_named(job, files, ids, tmp_path):
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        extract([job()], ids[:3], [*files[:2], tmp_path / "gone.png"], Reading())


def test_a_measurement_keeps_nothing(job, files, ids):
    mine = job()
    measure([mine], files, Reading())
    assert (mine.cost.images, mine.cost.sampled) == (len(files), True)
    assert not mine.cache.has(ids).any()


def test_on_a_processor_reading_and_network_add_up_and_beside_a_gpu_they_overlap():
    cost = Cost(images=100, reading=2.0, network=3.0)
    assert cost.images_per_second("cpu") == 20.0
    assert cost.images_per_second("cuda") == pytest.approx(100 / 3)


def test_a_block_has_whole_batches_and_little_memory(job):
    geometry = job().extractor.spec.transform
    each = 3 * geometry.height * geometry.width
    size = shared_decode.block_size([geometry])
    assert size % 64 == 0
    assert one_decode.BLOCK_BYTES - 64 * each < size * each <= one_decode.BLOCK_BYTES
    assert shared_decode.block_size([geometry] * 10_000) == 64
