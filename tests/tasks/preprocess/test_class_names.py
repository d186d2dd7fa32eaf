"""Names of classes that may be mistakes."""

import pytest

from graft.tasks.preprocess.class_names import doubtful_names


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["Ants", "ants", "bees"], "may be one: `Ants`, `ants`"),
        (["fire ant", "fire_ant", "bee"], "may be one: `fire ant`, `fire_ant`"),
        (["ants", "nan"], "missing label: `nan`"),
        (["ants", "ants|x"], "read as one class: `ants|x`"),
    ],
)
def test_doubtful_names_are_told(names, told):
    (doubt,) = doubtful_names(names)
    assert told in doubt


def test_ordinary_names_are_no_doubt():
    assert doubtful_names(["ant", "ants", "-1", "1", "A+", "A"]) == []
