import hashlib

import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.label_history import (
    DISCARD,
    HEADER,
    UNDO,
    UNSURE,
    Answer,
    append_answers,
    given_since,
    in_words,
    labels_of,
    now,
    read_answers,
    standings,
)


def image(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def answer(number: int, label: str, minute: int, who: str = "ann", why: str = "", replaced: str = "") -> Answer:
    return Answer(image(number), label, who, f"2026-11-30T12:{minute:02}:00.000Z", why, replaced)


@pytest.fixture
def table(tmp_path):
    return tmp_path / "data" / "labels.csv"


def test_without_a_file_there_are_no_answers(table):
    assert read_answers(table) == []


def test_what_is_appended_is_read_again(table):
    given = [answer(1, "cat, or dog", 0, why='says "so"'), answer(2, "", 1, who="Åsa")]
    append_answers(table, given[:1])
    append_answers(table, given[1:])
    assert read_answers(table) == given
    assert table.read_text(encoding="utf-8").splitlines()[0] == ",".join(HEADER)


def test_a_file_without_a_last_line_break_is_continued_on_a_new_line(table):
    append_answers(table, [answer(1, "cat", 0)])
    table.write_bytes(table.read_bytes().rstrip(b"\n"))
    append_answers(table, [answer(2, "dog", 1)])
    assert [one.label for one in read_answers(table)] == ["cat", "dog"]


def test_line_breaks_in_a_cell_do_not_make_two_rows(table):
    append_answers(table, [answer(1, "cat", 0, why="first\nsecond")])
    assert read_answers(table)[0].why == "first second"
    assert len(table.read_text(encoding="utf-8").splitlines()) == 2


def test_two_branches_merged_line_by_line_give_the_same_labels_in_any_order(table):
    rows = [answer(1, "cat", 3), answer(1, "dog", 1), answer(1, "cow", 2)]
    append_answers(table, rows)
    first = standings(read_answers(table))
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([lines[0], *reversed(lines), lines[2]]) + "\n", encoding="utf-8")
    assert standings(read_answers(table)) == first
    assert labels_of(first) == {image(1): "cat"}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("<<<<<<< HEAD", "line 2: a merge conflict"),
        ("abc,cat,ann,2026-11-30T12:00:00Z,,", "line 2: abc is not the md5"),
        (f"{image(1)},cat,ann", "line 2: 3 cells"),
        (f"{image(1)},!maybe,ann,2026-11-30T12:00:00Z,,", "line 2: unknown label !maybe"),
        (f"{image(1)},cat,ann,yesterday,,", "line 2: yesterday is not a time"),
    ],
)
def test_a_bad_row_is_named_with_what_is_wrong(table, line, named):
    table.parent.mkdir()
    table.write_text(",".join(HEADER) + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=named):
        read_answers(table)


def test_other_columns_are_refused(table):
    table.parent.mkdir()
    table.write_text("path,label\na.png,cat\n", encoding="utf-8")
    with pytest.raises(DataError, match="other columns"):
        read_answers(table)


def test_a_bad_answer_is_not_written(table):
    with pytest.raises(DataError, match="not the md5"):
        append_answers(table, [Answer("?", "cat", "ann", now())])
    assert not table.exists()


def test_the_last_label_counts():
    found = standings([answer(1, "cat", 0), answer(1, "dog", 1, who="bob", replaced="cat")])
    assert found[image(1)].label == "dog"
    assert found[image(1)].first == answer(1, "cat", 0)


def test_undo_takes_back_the_persons_own_last_answer():
    rows = [answer(1, "cat", 0), answer(1, "dog", 1, who="bob"), answer(1, UNDO, 2)]
    assert standings(rows)[image(1)].label == "dog"
    assert standings([*rows, answer(1, UNDO, 3, who="bob")]) == {}


def test_not_sure_changes_no_label():
    found = standings([answer(1, "cat", 0), answer(1, UNSURE, 1, who="bob")])[image(1)]
    assert (found.label, found.unsure) == ("cat", ("bob",))
    assert standings([answer(1, UNSURE, 0), answer(1, "cat", 1)])[image(1)].unsure == ()


def test_a_discarded_image_has_no_label():
    found = standings([answer(1, "cat", 0), answer(1, DISCARD, 1)])
    assert found[image(1)].discarded
    assert labels_of(found) == {}


@pytest.mark.parametrize(
    ("why", "replaced", "chosen"),
    [("margin", "", True), ("typical", "", True), ("random", "", False), ("margin", "cat", False), ("", "", False)],
)
def test_only_new_images_that_a_strategy_chose_are_no_fair_sample(why, replaced, chosen):
    assert standings([answer(1, "dog", 0, why=why, replaced=replaced)])[image(1)].chosen is chosen


def test_the_answers_since_a_moment_in_words():
    rows = [
        answer(1, "cat", 0),
        answer(2, "dog", 1, replaced="cat"),
        answer(2, "dog", 2, who="bob", replaced="dog"),
        answer(3, DISCARD, 3, who="bob"),
    ]
    since = given_since(rows, "2026-11-30T12:00:30Z")
    assert since == rows[1:]
    assert in_words(since) == "3 about 2 images (1 changed, 1 confirmed, 1 discarded), by bob, ann"
    assert given_since(rows, "") == rows
