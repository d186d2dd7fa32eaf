import gc
import threading
import weakref

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from graft.tasks.common.core import cores as cores_module
from graft.tasks.common.core.cores import cores
from graft.tasks.common.engines import openvino as module
from graft.tasks.common.engines.openvino import Engine, batch_of, choose_precision


@pytest.fixture(scope="module")
def small_graph(tmp_path_factory):
    """Pixels (B, 4, 4, 3) times a matrix: fast, and known."""
    source = ops.parameter([-1, 4, 4, 3], ov.Type.u8)
    flat = ops.reshape(ops.convert(source, "f32"), np.int64([-1, 48]), special_zero=False)
    weight = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)
    path = tmp_path_factory.mktemp("graph") / "graph.xml"
    ov.save_model(ov.Model([ops.matmul(flat, weight, False, False)], [source]), path, compress_to_fp16=False)
    return path, weight


@pytest.fixture(scope="module")
def engine(small_graph):
    return Engine(small_graph[0])


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (33, 4, 4, 3), dtype=np.uint8)


def collect(stream):
    return list(stream)


def test_an_engine_knows_its_input_and_its_dimension(tiny_graph):
    engine = Engine(tiny_graph.xml)
    assert (engine.height, engine.width, engine.dimension) == (160, 160, tiny_graph.spec.dimension)


def test_features_of_a_batch_are_those_of_the_graph(engine, small_graph, pixels):
    expected = pixels.reshape(33, 48).astype(np.float32) @ small_graph[1]
    assert np.allclose(engine(pixels), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("threads", [1, 2, 7, None])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 33])
def test_features_come_in_order_whatever_the_number_of_images_and_threads(engine, pixels, count, threads):
    expected = np.concatenate([engine(pixels[i : i + 1]) for i in range(count)])
    parts = collect(engine.stream(lambda i: pixels[i], count, threads))
    assert [start for start, _ in parts] == list(np.cumsum([0, *(len(b) for _, b in parts[:-1])]))
    assert np.allclose(np.concatenate([batch for _, batch in parts]), expected, rtol=1e-5, atol=1e-3)


def test_a_real_networks_features_do_not_depend_on_the_batch(tiny_graph):
    engine = Engine(tiny_graph.xml)
    pixels = np.random.default_rng(2).integers(0, 256, (9, 160, 160, 3), dtype=np.uint8)
    streamed = np.concatenate([batch for _, batch in engine.stream(lambda i: pixels[i], 9)])
    alone = np.concatenate([engine(pixels[i : i + 1]) for i in range(9)])
    assert np.allclose(streamed, alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())


def test_an_engine_that_has_rested_gives_the_same(tiny_graph):
    engine, pixels = Engine(tiny_graph.xml), np.full((8, 160, 160, 3), 77, np.uint8)
    before = engine(pixels)
    engine.rest()
    assert np.array_equal(engine(pixels), before)


def test_features_come_in_order_when_the_first_image_is_decoded_last(engine, pixels):
    others = threading.Barrier(9)  # image 0 waits until eight others have been asked for

    def load(i):
        if i < 9:
            others.wait(timeout=30)
        return pixels[i]

    parts = collect(engine.stream(load, 33, threads=9))
    assert np.allclose(np.concatenate([batch for _, batch in parts]), engine(pixels), rtol=1e-5, atol=1e-3)


def test_no_image_gives_no_batch(engine):
    assert collect(engine.stream(lambda i: None, 0)) == []


def test_each_image_is_loaded_once(engine, pixels):
    asked = []
    collect(engine.stream(lambda i: asked.append(i) or pixels[i], 33))
    assert sorted(asked) == list(range(33))


def test_a_batch_is_the_consumers_to_keep(engine, pixels):
    first, *_ = parts = collect(engine.stream(lambda i: pixels[i % 33], 200))
    assert np.allclose(first[1], engine(pixels[:8]), rtol=1e-5, atol=1e-3)
    assert not np.shares_memory(parts[0][1], parts[-1][1])


@pytest.mark.parametrize("place", [0, 8, 32])
def test_an_exception_while_loading_is_raised(engine, pixels, place):
    def load(i):
        if i == place:
            raise LookupError(f"image {i}")
        return pixels[i]

    with pytest.raises(LookupError, match=f"image {place}"):
        collect(engine.stream(load, 33, 2))


def test_an_image_of_the_wrong_size_is_an_error(engine):
    with pytest.raises(ValueError, match="broadcast"):
        collect(engine.stream(lambda i: np.zeros((5, 5, 3), np.uint8), 3))


def test_a_consumer_that_stops_early_leaves_no_thread(engine, pixels):
    stream = engine.stream(lambda i: pixels[i % 33], 10_000, 3)
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_a_consumer_that_stops_early_loads_no_more(engine, pixels):
    asked = []
    stream = engine.stream(lambda i: asked.append(i) or pixels[i % 33], 100_000, 2)
    next(stream)
    stream.close()
    seen = len(asked)
    assert seen < 10_000
    assert len(asked) == seen


def test_memory_is_bounded_when_the_consumer_is_slow(engine, pixels):
    asked = []
    stream = engine.stream(lambda i: asked.append(i) or pixels[i % 33], 100_000, 2)
    for _ in range(3):
        next(stream)
    ahead = len(asked)
    stream.close()
    assert ahead < 10_000


def test_an_engine_can_stream_again_after_a_failure(engine, pixels):
    with pytest.raises(ZeroDivisionError):
        collect(engine.stream(lambda i: pixels[1 // i], 5))
    assert len(collect(engine.stream(lambda i: pixels[i], 5))[0][1]) == 5


def test_fp32_that_was_asked_for_looks_at_no_image():
    assert choose_precision(unused, "f32", unused, fast=True) == ("f32", "asked for")


def test_auto_is_fp32_where_bf16_is_not_fast():
    assert choose_precision(unused, "auto", unused, fast=False)[0] == "f32"


def unused(*_):
    raise AssertionError


def off_by(turn):
    """Stands for a processor on which bf16 gives other features: few have one that does."""

    def build(precision):
        angle = turn if precision == "bf16" else 0.0
        return lambda pixels: np.tile(np.float32([np.cos(angle), np.sin(angle)]), (len(pixels), 1))

    return build


@pytest.mark.parametrize("wanted", ["auto", "bf16"])
def test_bf16_that_differs_from_fp32_falls_back_and_says_so(pixels, wanted):
    precision, why = choose_precision(off_by(0.1), wanted, lambda: list(pixels[:8]), fast=True)
    assert precision == "f32"
    assert "least cosine 0.995" in why


def test_bf16_that_agrees_with_fp32_is_taken(pixels):
    assert choose_precision(off_by(0.01), "auto", lambda: list(pixels[:8]), fast=True)[0] == "bf16"


def test_one_image_that_differs_is_enough_to_fall_back(pixels):
    def build(precision):
        rows = np.tile(np.float32([1, 0]), (8, 1))
        if precision == "bf16":
            rows[3] = [0.9, 0.5]
        return lambda _: rows

    assert choose_precision(build, "bf16", lambda: list(pixels[:8]), fast=True)[0] == "f32"


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_bf16_that_gives_no_numbers_or_nothing_is_not_taken(pixels, broken):
    def build(precision):
        return lambda pixels: np.full((len(pixels), 2), broken if precision == "bf16" else 1.0, np.float32)

    assert choose_precision(build, "bf16", lambda: list(pixels[:8]), fast=True)[0] == "f32"


def test_a_stream_that_has_ended_leaves_nothing_in_memory(engine, pixels, monkeypatch):
    rings = []
    original = module._Ring.__init__
    monkeypatch.setattr(
        module._Ring, "__init__", lambda self, *words: (rings.append(weakref.ref(self)), original(self, *words))[1]
    )
    collect(engine.stream(lambda i: pixels[i], 33))
    gc.collect()
    assert rings
    assert rings[0]() is None


def test_an_engine_can_be_thrown_away_right_after_its_last_batch(tiny_graph):
    pixels = np.random.default_rng(2).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    for _ in range(12):
        engine = Engine(tiny_graph.xml)
        assert len(collect(engine.stream(lambda i: pixels, 17))) == 3
        del engine


def threads_of(engine):
    return engine._model.get_property("INFERENCE_NUM_THREADS")


def test_a_quota_of_processors_bounds_the_threads_of_openvino(tiny_graph, monkeypatch):
    assert threads_of(Engine(tiny_graph.xml)) <= cores()
    monkeypatch.setattr(cores_module, "_affinity", lambda: 8)
    monkeypatch.setattr(cores_module, "quota", lambda root, group: 0.5)
    assert threads_of(Engine(tiny_graph.xml)) == 1


def test_a_request_that_fails_is_an_error_and_does_not_hang(engine, pixels, monkeypatch):
    wrong = np.zeros((8, 4, 5, 3), np.uint8)  # a batch that the network cannot take
    original = module.ov.Tensor
    monkeypatch.setattr(module.ov, "Tensor", lambda pixels, shared_memory: original(wrong, shared_memory=True))
    with pytest.raises(RuntimeError):
        collect(engine.stream(lambda i: pixels[i], 33))


@pytest.mark.parametrize(("side", "batch"), [(224, 8), (768, 8), (769, 4), (1536, 2), (4096, 1)])
def test_fewer_images_are_computed_at_once_if_they_are_large(side, batch):
    assert batch_of(side, side, 8) == batch
