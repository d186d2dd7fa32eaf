from dataclasses import replace

import numpy as np
import pytest

from graft.tasks.labelling.strategies import Pool, choose, margins

CENTRES = np.random.default_rng(0).normal(size=(4, 16)) * 6


def pool(each=30, labels=0, model=True, **more):
    """Four kinds of images, of which the first `labels` of each kind have a label."""
    rng = np.random.default_rng(1)
    x = np.concatenate([centre + rng.normal(size=(each + labels, 16)) for centre in CENTRES]).astype(np.float32)
    kind = np.repeat(np.arange(4), each + labels)
    known = np.tile(np.arange(each + labels) < labels, 4)
    sure = np.tile(np.linspace(0.3, 0.97, each), 4)[:, None]
    p = np.where(np.arange(4) == kind[~known, None], sure, (1 - sure) / 3)
    return Pool(x[~known], np.arange(4 * each), p if model else None, x[known], kind[known].astype(np.int64), 4, **more)


@pytest.mark.parametrize("strategy", ["auto", "typical", "margin", "random"])
@pytest.mark.parametrize("wanted", [1, 7, 20, 500])
def test_as_many_different_images_as_wanted_and_there_are(strategy, wanted):
    chosen = choose(pool(labels=10), wanted, strategy)
    assert len(set(chosen.rows.tolist())) == len(chosen.rows) == len(chosen.why) == min(wanted, 120)


def test_a_tenth_is_drawn_at_random_and_spread_among_the_others():
    chosen = choose(pool(labels=10), 20, "margin")
    places = [place for place, why in enumerate(chosen.why) if why == "random"]
    assert len(places) == 2
    assert places[0] < 10 <= places[1]
    assert set(chosen.why) == {"margin", "random"}


def test_the_same_seed_gives_the_same_images():
    first, again, other = (choose(pool(labels=10, seed=seed), 20).rows.tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_the_first_images_are_of_every_kind():
    chosen = choose(pool(model=False), 10)
    typical = [row for row, why in zip(chosen.rows, chosen.why) if why == "typical"]
    assert chosen.strategy == "typical"
    assert {row // 30 for row in typical} == {0, 1, 2, 3}


def test_kinds_without_a_label_come_first():
    at = pool(labels=5, model=False)
    at = replace(at, known_LD=at.known_LD[:15], label_L=at.label_L[:15])  # none of the last kind
    chosen = choose(at, 4, "typical")
    assert any(row // 30 == 3 for row, why in zip(chosen.rows, chosen.why) if why == "typical")


def test_auto_trusts_the_model_with_ten_labels_a_class():
    assert choose(pool(labels=9), 5).strategy == "typical"
    assert choose(pool(labels=10), 5).strategy == "margin"


def test_margin_takes_what_the_model_cannot_tell():
    at = pool(labels=10)
    chosen = choose(at, 10, "margin")
    taken = [row for row, why in zip(chosen.rows, chosen.why) if why == "margin"]
    assert margins(at.p_PK)[taken].mean() < margins(at.p_PK).mean() * 0.9
    assert {row // 30 for row in taken} == {0, 1, 2, 3}


def test_near_copies_are_not_asked_twice():
    at = pool(labels=10)
    rng = np.random.default_rng(2)
    small, known = rng.normal(size=(120, 48)), rng.normal(size=(40, 48))
    small[:60] = small[60:] * 1.01  # each picture is there twice
    small[60:64] = known[:4]
    chosen = choose(replace(at, small_PV=small, known_small_LV=known), 200, "margin")
    assert len(chosen.rows) == 60
    assert not set(range(60, 64)) & set(chosen.rows.tolist())
    assert not [row for row in chosen.rows if row >= 60 and row - 60 in chosen.rows]


def test_one_image_of_each_unit_comes_first():
    at = replace(pool(labels=10), unit_P=np.arange(120) // 6)
    chosen = choose(at, 20, "random")
    assert len({int(row) // 6 for row in chosen.rows}) == 20
    assert len(choose(at, 30, "random").rows) == 30
