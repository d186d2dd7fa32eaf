import numpy as np

from graft.tasks.common.core.blocks import blocks


def test_blocks_cover_all_rows_once_and_in_order():
    rows = np.arange(10)
    assert [list(rows[block]) for block in blocks(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_no_rows_have_no_blocks():
    assert list(blocks(0)) == []
