import numpy as np
import pytest

from graft.tasks.audit.embedding import embed
from graft.tasks.common.heads.base import unit_length


def heaps(count, heaps=3, seed=0):
    """(rows of length 1 around a few directions, which one each)."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(heaps), count)
    rows = rng.normal(size=(heaps, 20))[code] + 0.1 * rng.normal(size=(len(code), 20))
    return unit_length(rows.astype(np.float32)), code


def test_what_is_near_is_near_on_the_map():
    rows, code = heaps(40)
    places = embed(rows)
    squared = ((places[:, None] - places) ** 2).sum(axis=-1)
    np.fill_diagonal(squared, np.inf)
    nearest = np.argsort(squared, axis=1)[:, :5]
    assert (code[nearest] == code[:, None]).mean() > 0.98


def test_neighbours_are_kept_better_than_by_two_principal_axes():
    rows, code = heaps(20, heaps=12)
    centred = rows - rows.mean(axis=0)
    flat = np.linalg.svd(centred, full_matrices=False)[0][:, :2]

    def same(places):
        squared = ((places[:, None] - places) ** 2).sum(axis=-1)
        np.fill_diagonal(squared, np.inf)
        return (code[squared.argmin(axis=1)] == code).mean()

    assert same(embed(rows)) > same(flat)


def test_the_same_rows_have_the_same_map():
    rows, _ = heaps(15)
    assert embed(rows).tobytes() == embed(rows.copy()).tobytes()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7])
def test_few_images_have_a_map(n):
    places = embed(heaps(3)[0][:n])
    assert places.shape == (n, 2)
    assert np.isfinite(places).all()


def test_images_that_are_all_the_same_have_a_map():
    assert np.isfinite(embed(np.ones((30, 4), np.float32) / 2)).all()
