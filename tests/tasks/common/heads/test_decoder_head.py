import subprocess
import sys

import numpy as np
import pytest

from graft.tasks.common.heads.decoder import DecoderHead, Plan
from graft.tasks.common.heads.load import load_head


def decoder(plan: Plan, target: str = "image", seed: int = 0) -> DecoderHead:
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in plan.shapes().items()}
    return DecoderHead(plan, weights, target)


SMALL = Plan.of([(3, 6, 5), (4, 3, 3)], (2, 12, 10), 4, 8)


def test_a_plan_has_a_step_for_each_map_and_each_finer_halving():
    plan = Plan.of([(24, 56, 56), (40, 28, 28), (112, 14, 14), (128, 7, 7)], (3, 224, 224), 16, 64)
    assert plan.steps == ((7, 7, 64), (14, 14, 64), (28, 28, 64), (56, 56, 32), (112, 112, 16))
    assert plan.block == 2
    assert plan.maps_at(4) == []
    assert plan.maps_at(0) == [3]


def test_a_transformers_maps_of_one_size_are_one_step():
    plan = Plan.of([(8, 16, 16)] * 3, (3, 224, 224), 8, 32)
    assert [step[:2] for step in plan.steps] == [(16, 16), (28, 28), (56, 56), (112, 112)]
    assert plan.maps_at(0) == [0, 1, 2]


@pytest.mark.parametrize("image", [(1, 32, 48), (3, 33, 47), (2, 30, 90)])
def test_what_is_decoded_has_the_size_of_the_image_whatever_it_is(image):
    _, height, width = image
    plan = Plan.of([(2, -(-height // 4), -(-width // 4)), (3, -(-height // 16), -(-width // 16))], image, 4, 8)
    assert decoder(plan).images(np.zeros((2, plan.dimension))).shape == (2, *image)


def test_decoded_values_are_between_0_and_1_and_do_not_depend_on_the_batch():
    head, maps = decoder(SMALL), np.random.default_rng(1).normal(size=(20, SMALL.dimension)).astype(np.float16)
    together = head.images(maps)
    assert together.min() >= 0
    assert together.max() <= 1
    assert np.allclose(together[17], head.images(maps[17:18])[0], atol=1e-6)


def test_no_image_is_decoded_to_none():
    assert decoder(SMALL).images(np.empty((0, SMALL.dimension))).shape == (0, 2, 12, 10)


def test_a_saved_decoder_decodes_the_same(tmp_path):
    head, maps = decoder(SMALL, "mask"), np.ones((1, SMALL.dimension))
    head.save(tmp_path)
    again = load_head(tmp_path)
    assert isinstance(again, DecoderHead)
    assert again.target == "mask"
    assert again.task == "reconstruction"
    assert np.array_equal(again.images(maps), head.images(maps))


def test_its_output_as_a_head_is_the_marked_share_of_a_mask():
    head, maps = decoder(SMALL, "mask"), np.random.default_rng(2).normal(size=(3, SMALL.dimension))
    assert np.allclose(head.output(maps)[:, 0], head.marked(head.images(maps)).mean(axis=(1, 2)))


def test_it_decodes_without_torch(tmp_path):
    decoder(SMALL).save(tmp_path)
    program = (
        "import sys, pathlib; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from graft.tasks.common.heads.load import load_head\n"
        f"print(load_head(pathlib.Path(sys.argv[1])).images(np.zeros((1, {SMALL.dimension}))).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 2, 12, 10)"
