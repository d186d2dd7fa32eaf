import hashlib

import pytest

from graft.flows.labelling.desk import LEASE, Desk, agreement
from graft.flows.labelling.queues import Item
from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.label_history import DISCARD, UNDO, UNSURE, Answer, labels_of, read_answers, standings


def image(number):
    return hashlib.md5(str(number).encode()).hexdigest()


def items(count=4, queue="pool"):
    return [Item(image(n), f"data/pool/{n}.png", queue, "margin", "cat" if n % 2 else "dog", 0.6) for n in range(count)]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def file(tmp_path):
    return tmp_path / "labels.csv"


@pytest.fixture
def desk(file):
    return Desk(file, items(), lambda image_id: "", [])


def ids(found):
    return [item.image_id for item in found]


def test_an_answer_is_on_the_disk_with_who_and_why(desk, file):
    assert desk.answer(image(0), "cat", "ann", "margin")
    (row,) = read_answers(file)
    assert (row.image_id, row.label, row.who, row.why, row.replaced) == (image(0), "cat", "ann", "margin", "")
    assert ids(desk.next("pool", "ann", 9)) == [image(1), image(2), image(3)]


def test_the_same_request_twice_is_one_answer(desk, file):
    assert desk.answer(image(0), "cat", "ann", "")
    assert not desk.answer(image(0), "cat", "ann", "")
    assert len(read_answers(file)) == 1


def test_two_people_are_never_shown_the_same_image(desk):
    ann, bob = desk.next("pool", "ann", 2), desk.next("pool", "bob", 2)
    assert not set(ids(ann)) & set(ids(bob))
    assert desk.next("pool", "carl") == []


def test_an_image_that_a_person_left_is_shown_to_others(file):
    clock = Clock()
    desk = Desk(file, items(1), lambda image_id: "", [], clock=clock)
    desk.next("pool", "ann")
    assert desk.next("pool", "bob") == []
    clock.now = LEASE + 1
    assert ids(desk.next("pool", "bob")) == [image(0)]


def test_undo_takes_back_ones_own_last_answers_in_turn(desk, file):
    for number, who in ((0, "ann"), (1, "bob"), (2, "ann")):
        desk.answer(image(number), "cat", who, "")
    assert [desk.undo("ann"), desk.undo("ann"), desk.undo("ann")] == [image(2), image(0), ""]
    rows = read_answers(file)
    assert [row.label for row in rows] == ["cat"] * 3 + [UNDO] * 2
    assert labels_of(standings(rows)) == {image(1): "cat"}
    assert image(0) in ids(desk.next("pool", "ann", 4))


def test_a_server_that_was_killed_goes_on_where_it_was(desk, file):
    desk.answer(image(0), "cat", "ann", "")
    desk.answer(image(1), UNSURE, "ann", "")
    again = Desk(file, items(), lambda image_id: "", read_answers(file))
    assert ids(again.next("pool", "bob", 9)) == [image(2), image(3)]
    assert again.undo("ann") == image(1)


def test_a_skipped_image_is_for_the_others(desk):
    desk.skip(image(0), "ann")
    assert image(0) not in ids(desk.next("pool", "ann", 2))
    assert image(0) in ids(desk.next("pool", "bob", 2))


def test_some_images_are_asked_twice_and_agreement_is_measured(file):
    desk = Desk(file, items(2), lambda image_id: "", [], twice=1.0)
    desk.answer(image(0), "cat", "ann", "")
    assert ids(desk.next("pool", "ann", 2)) == [image(1)]
    assert image(0) in ids(desk.next("pool", "bob", 2))
    desk.answer(image(0), "dog", "bob", "")
    assert desk.progress()["agreement"] == {"images": 1, "equal": 0.0, "kappa": -1.0}
    assert desk.left()["pool"] == 1


def test_agreement_beyond_chance():
    def of(*labels):
        return {who: Answer(image(0), label, who, "") for who, label in zip("abc", labels)}

    assert agreement([of("cat")]) == {"images": 0}
    found = agreement([of("cat", "cat"), of("dog", "dog"), of("cat", "dog"), of("dog", "dog")])
    assert found["equal"] == 0.75
    assert found["kappa"] == pytest.approx((0.75 - (9 + 25) / 64) / (1 - (9 + 25) / 64), abs=1e-4)


def test_the_label_follows_the_answers(file):
    desk = Desk(file, items(), lambda image_id: "cow", [])
    assert desk.label(image(0)) == "cow"
    desk.answer(image(0), "cat", "ann", "")
    assert read_answers(file)[0].replaced == "cow"
    assert desk.label(image(0)) == "cat"
    desk.answer(image(0), DISCARD, "ann", "")
    assert desk.label(image(0)) == ""


def test_images_of_one_guess_are_lent_together(desk):
    assert desk.guesses("pool") == {"dog": 2, "cat": 2}
    assert ids(desk.of_guess("pool", "cat", "ann", 9)) == [image(1), image(3)]


def test_an_answer_that_cannot_be_written_does_not_count(desk, file):
    with pytest.raises(DataError):
        desk.answer("no-image", "cat", "ann", "")
    assert not file.exists()
