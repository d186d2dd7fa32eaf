import threading

import numpy as np
import pytest

from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.engines.torch import BATCH, TorchEngine, best_device, has_fast_bf16


@pytest.fixture(scope="module")
def torch_engine(tiny_network, tiny_graph):
    return TorchEngine(tiny_network, tiny_graph.spec.transform, "cpu")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 160, 160, 3), dtype=np.uint8)


def test_its_features_are_those_of_the_other_engine(torch_engine, tiny_graph, pixels):
    expected = Engine(tiny_graph.xml)(pixels)
    assert np.allclose(torch_engine(pixels), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("count", [0, 1, BATCH, 2 * BATCH + 3])
def test_features_come_in_order_whatever_the_number_of_images(torch_engine, pixels, count):
    parts = list(torch_engine.stream(lambda i: pixels[i % 5], count, 3))
    assert [start for start, _ in parts] == list(range(0, count, BATCH))
    if count:
        expected = torch_engine(pixels)[np.arange(count) % 5]
        assert np.allclose(np.concatenate([b for _, b in parts]), expected, rtol=1e-3, atol=1e-4)


def test_an_exception_while_loading_is_raised_and_leaves_no_thread(torch_engine, pixels):
    def load(i):
        if i == BATCH + 1:
            raise LookupError(f"image {i}")
        return pixels[0]

    with pytest.raises(LookupError, match=f"image {BATCH + 1}"):
        list(torch_engine.stream(load, 10 * BATCH, 2))
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_memory_is_bounded_when_the_consumer_is_slow(torch_engine, pixels):
    asked = []
    stream = torch_engine.stream(lambda i: asked.append(i) or pixels[0], 100 * BATCH, 2)
    next(stream)
    stream.close()
    assert len(asked) <= 6 * BATCH


def test_bf16_is_close_to_fp32(tiny_network, tiny_graph, torch_engine, pixels):
    a = TorchEngine(tiny_network, tiny_graph.spec.transform, "cpu", "bf16")(pixels).astype(np.float64)
    b = torch_engine(pixels).astype(np.float64)
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.99
    assert a.shape == b.shape


def test_the_device_is_one_that_torch_has():
    assert best_device() in ("cuda", "mps", "cpu")
    assert not has_fast_bf16("cpu")
