from dataclasses import replace

import numpy as np
import pytest

from graft.tasks.labelling.strategies import Pool, choose, doubts, margins

CENTRES = np.random.default_rng(0).normal(size=(4, 16)) * 6


def pool(each=30, labels=0, model=True, **more):
    """Four kinds of images; the first `labels` of each kind have a label."""
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


def test_one_in_twenty_is_drawn_at_random_and_spread_among_the_others():
    chosen = choose(pool(labels=10), 40, "margin")
    places = [place for place, why in enumerate(chosen.why) if why == "random"]
    assert len(places) == 2
    assert places[0] < 20 <= places[1]
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


def test_auto_trusts_the_model_with_five_labels_a_class_and_25_in_all():
    assert choose(pool(labels=6), 5).strategy == "typical"
    assert choose(pool(labels=7), 5).strategy == "margin"
    assert choose(replace(pool(labels=7), classes=6), 5).strategy == "typical"


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


def test_a_kind_in_much_doubt_has_a_larger_share():
    at = pool(labels=20)
    p_PK = at.p_PK.copy()
    p_PK[:60] = [0.97, 0.01, 0.01, 0.01]
    p_PK[30:60] = [0.01, 0.97, 0.01, 0.01]
    chosen = choose(replace(at, p_PK=p_PK), 20, "margin")
    taken = [row // 30 for row, why in zip(chosen.rows, chosen.why) if why == "margin"]
    assert sum(kind in (2, 3) for kind in taken) > 12


def test_with_several_classes_doubt_is_the_closest_to_the_threshold():
    at = replace(pool(), p_PK=np.array([[0.9, 0.1], [0.9, 0.45], [0.5, 0.0]]), task="multilabel", classes=2)
    doubt_P, kind_P = doubts(at)
    assert doubt_P == pytest.approx([0.2, 0.9, 1.0])
    assert list(kind_P[1:]) == [1, 0]


def test_with_numbers_doubt_is_how_far_models_disagree():
    p_PK, unsure_P = np.arange(120.0)[:, None], np.linspace(0, 3, 120)
    at = replace(pool(labels=13), p_PK=p_PK, unsure_P=unsure_P, task="regression", classes=0)
    doubt_P, kind_P = doubts(at)
    assert doubt_P[[0, -1]] == pytest.approx([0, 1])
    assert set(kind_P) == set(range(10))
    assert choose(at, 12).strategy == "margin"


def test_a_task_without_a_model_to_ask_is_typical():
    at = replace(pool(labels=20), task="anomaly", p_PK=np.ones((120, 1)))
    assert doubts(at) is None
    assert choose(at, 5, "margin").strategy == "typical"


def test_many_features_are_clustered_in_few_axes():
    at = pool(labels=13)
    wide = np.random.default_rng(0).normal(size=(16, 300)).astype(np.float32)
    at = replace(at, features_PD=at.features_PD @ wide, known_LD=at.known_LD @ wide)
    for strategy in ("typical", "margin"):
        assert len(choose(at, 20, strategy).rows) == 20
