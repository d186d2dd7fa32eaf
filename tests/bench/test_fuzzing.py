"""200 mutated files of every format: each is used or refused with a reason, within the time of an image."""

import time

import pytest

from bench.fuzzing import FORMATS, mutations, originals, png
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.unreadable import Refused
from graft.tasks.preprocess.check import judge, look


def reason_against(file):
    """Why preprocess would not use it."""
    try:
        return judge(look(file), 16, 0.9)
    except Refused as error:
        return str(error)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_each_mutated_file_is_used_or_refused_with_a_reason(tmp_path):
    reasons = []
    for number, content in enumerate(mutations(200)):
        file = tmp_path / f"{number}.bin"
        file.write_bytes(content)
        started = time.perf_counter()
        reasons.append(reason_against(file))
        if not reasons[-1]:
            with Reading().file(file) as picture:
                assert picture[0].mode == "RGB"
        assert time.perf_counter() - started < 10
    assert 20 < reasons.count("") < 180


def test_the_same_seed_gives_the_same_files():
    assert list(mutations(5)) == list(mutations(5))
    assert list(mutations(5)) != list(mutations(5, seed=1))
    assert len(originals()) >= len(FORMATS)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (16, 2_000_000), (2_000_000, 16)])
def test_a_monster_is_refused_by_its_header(width, height):
    with pytest.raises(Refused, match="preprocess"), Reading().image(png(width, height, "RGB")):
        pass
