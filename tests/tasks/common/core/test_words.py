import pytest

from graft.tasks.common.core.words import listed


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, ""),
        (1, "0"),
        (10, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (11, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more"),
        (2_010, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2,000 more"),
    ],
)
def test_a_sentence_has_the_first_ten_names_and_the_number_of_the_others(count: int, text: str) -> None:
    assert listed(range(count)) == text
