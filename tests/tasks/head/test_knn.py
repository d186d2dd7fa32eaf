import numpy as np
import pytest

from graft.tasks.common.scoring.classification import log_loss
from graft.tasks.head import knn
from graft.tasks.head.estimator import check
from graft.tasks.head.knn import NearestNeighbours


def rows(n=50, d=8, seed=0):
    x_ND = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x_ND, (x_ND[:, 0] > 0).astype(np.int64)


def test_the_nearest_neighbour_of_a_row_is_itself():
    x_ND, y_N = rows()
    assert (NearestNeighbours(["a", "b"], k=1).fit(x_ND, y_N).predict(x_ND) == y_N).all()


def test_only_the_direction_of_features_counts():
    x_ND, y_N = rows()
    unseen, _ = rows(seed=1)
    length_N1 = np.linspace(0.1, 10, 50, dtype=np.float32)[:, None]
    plain = NearestNeighbours(["a", "b"]).fit(x_ND, y_N).predict_proba(unseen)
    scaled = NearestNeighbours(["a", "b"]).fit(x_ND * length_N1, y_N).predict_proba(unseen / length_N1)
    assert np.allclose(plain, scaled, atol=1e-3)


def test_with_fewer_rows_than_neighbours_all_rows_vote():
    x_ND, y_N = rows(6)
    many, six = (NearestNeighbours(["a", "b"], k=k).fit(x_ND, y_N).predict_proba(x_ND) for k in (100, 6))
    assert np.array_equal(many, six)


def test_the_path_has_what_each_number_of_neighbours_has_by_itself():
    (x_ND, y_N), (held_MD, _) = rows(), rows(seed=1)
    examples = check(x_ND, y_N, None, ["a", "b"], "classification")
    steps = list(knn.path(["a", "b"], "classification", [1, 7, 20], 0.1)(examples, held_MD))
    assert [step.settings for step in steps] == [{"k": 20}, {"k": 7}, {"k": 1}]
    for step in steps:
        alone = NearestNeighbours(["a", "b"], k=int(step.settings["k"]), temperature=0.1).fit(x_ND, y_N)
        assert np.array_equal(step.output, alone.predict_proba(held_MD))
        assert np.array_equal(step.output, step.head.predict_proba(held_MD))


def test_the_training_loss_is_that_of_each_row_by_the_others():
    x_ND, y_N = rows(40)
    (step,) = knn.path(["a", "b"], "classification", [5], 0.1)(
        check(x_ND, y_N, None, ["a", "b"], "classification"), x_ND
    )
    p_NK = [
        NearestNeighbours(["a", "b"], k=5, temperature=0.1)
        .fit(np.delete(x_ND, row, axis=0), np.delete(y_N, row))
        .predict_proba(x_ND[[row]])[0]
        for row in range(40)
    ]
    assert step.train_loss == pytest.approx(log_loss(np.array(p_NK), y_N), rel=0.02)


def test_rows_that_are_all_alike_have_a_training_loss_too():
    x_ND, y_N = np.ones((30, 4), np.float32), np.arange(30) % 2
    (step,) = knn.path(["a", "b"], "classification", [3], 0.1)(
        check(x_ND, y_N, None, ["a", "b"], "classification"), x_ND
    )
    assert 0 < step.train_loss < 2


def test_float16_costs_no_accuracy():
    (x_ND, y_N), (held_MD, _) = rows(400, 64), rows(400, 64, seed=1)
    head = NearestNeighbours(["a", "b"], k=10).fit(x_ND, y_N).head_
    cosine_MN = (held_MD / np.linalg.norm(held_MD, axis=1)[:, None]) @ (x_ND / np.linalg.norm(x_ND, axis=1)[:, None]).T
    nearest = np.argsort(-cosine_MN, axis=1)[:, :10]
    votes = np.exp(np.take_along_axis(cosine_MN, nearest, axis=1) / 0.07)
    exact = ((votes * y_N[nearest]).sum(axis=1) / votes.sum(axis=1) > 0.5).astype(int)
    assert (head.predict(held_MD) == exact).mean() > 0.99


def test_of_rows_that_are_just_alike_the_earlier_ones_vote():
    x_ND, unlike = np.tile(np.float32([[1, 0]]), (3000, 1)), np.float32([[0, 1]])
    x_ND[:1500] = np.concatenate([unlike, x_ND[1:1500]])
    head = NearestNeighbours(["a", "b"], k=50).fit(x_ND, np.arange(3000) % 2).head_
    cosine, place = head.search(np.float32([[2, 0], [0, 3]]))
    assert np.array_equal(place, [np.arange(1, 51), np.arange(50)])
    assert (cosine[0] == 1).all()
    assert cosine[1].tolist() == [1.0] + [0.0] * 49


def test_cosines_below_nought_keep_their_order():
    x_ND = np.float32([[-1, 0], [-0.5, 0.8], [0, 1], [0.5, 0.8], [1, 0]])
    head = NearestNeighbours(["a", "b"], k=4).fit(x_ND, np.array([0, 1, 0, 1, 0])).head_
    assert head.search(np.float32([[1, 0], [-1, 0]]))[1].tolist() == [[4, 3, 2, 1], [0, 1, 2, 3]]
