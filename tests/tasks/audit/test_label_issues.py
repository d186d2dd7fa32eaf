import numpy as np
import pytest

from graft.tasks.audit.findings import doubted_twice, whole_units
from graft.tasks.audit.label_issues import (
    COLUMNS,
    by_chance,
    deviations,
    label_issues,
    suspected,
    wrong_classes,
    wrong_marks,
)
from graft.tasks.audit.params import AuditParams


def alone(pack):
    """Units without near-copies."""
    return whole_units(pack, np.arange(len(pack.index)))


def sure(codes, k, p=0.9):
    """Probabilities that say `codes` with p."""
    p_NK = np.full((len(codes), k), (1 - p) / (k - 1))
    p_NK[np.arange(len(codes)), codes] = p
    return p_NK


def flip(labels, share, seed):
    """(labels of which a share is another class's, which ones)."""
    rng = np.random.default_rng(seed)
    names = np.unique(labels)
    flipped = rng.permutation(len(labels)) < round(share * len(labels))
    other = (np.searchsorted(names, labels) + rng.integers(1, len(names), len(labels))) % len(names)
    return np.where(flipped, names[other], labels), flipped


def test_an_image_of_which_the_models_are_sure_otherwise_is_suspected():
    said, given = np.array([0] * 10 + [1] * 10), np.array([0] * 9 + [1] + [1] * 10)
    assert list(np.flatnonzero(wrong_classes(sure(said, 2), given))) == [9]


def test_where_models_and_labels_agree_none_is_suspected():
    codes = np.repeat([0, 1, 2], 5)
    assert not wrong_classes(sure(codes, 3), codes).any()


def test_a_doubt_that_is_no_greater_than_the_classes_own_is_no_suspicion():
    """Confidence is measured by each class's mean: of a class of which models are never sure, 0.45 is much."""
    p_NK = np.array([[0.45, 0.55], [0.45, 0.55], [0.45, 0.55], [0.05, 0.95], [0.1, 0.9]])
    assert not wrong_classes(p_NK, np.array([0, 0, 0, 1, 1])).any()


def test_as_many_as_count_for_another_class_are_suspected_those_with_the_least_probable_label():
    """The confident joint's off-diagonal counts; the label's own probability chooses (Northcutt et al. 2021)."""
    y_N = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    p_NK = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.35, 0.65], [0.1, 0.9], [0.3, 0.7], [0.4, 0.6], [0.4, 0.6]])
    # Thresholds: 0.5625 for class 0, 0.7 for class 1. Only the third image of class 0 counts for class 1.
    assert list(np.flatnonzero(wrong_classes(p_NK, y_N))) == [2]


def test_a_class_without_labels_is_never_suggested():
    p_NK = sure(np.array([2, 0, 1, 0, 1]), 3)
    found = wrong_classes(p_NK, np.array([0, 0, 1, 0, 1]))
    assert not found.any()


def test_the_marks_of_each_class_are_judged_by_themselves():
    y_NK = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1], [0, 1]], float)
    p_NK = np.array([[0.9, 0.9], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    assert np.argwhere(wrong_marks(p_NK, y_NK)).tolist() == [[0, 1]]


def test_a_number_is_judged_by_the_usual_size_of_the_errors():
    errors = np.array([0.1, -0.2, 0.1, -0.1, 0.2, 9.0])
    far = deviations(np.zeros(6), errors)
    assert far.argmax() == 5
    centred = np.abs(errors - np.median(errors))
    assert far[5] == pytest.approx(centred[5] / (1.4826 * np.median(centred)))


def test_numbers_that_are_all_predicted_exactly_are_not_judged():
    assert (deviations(np.ones(5), np.ones(5)) == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_of_flipped_labels_most_are_found_and_few_others(pack_of, clouds, probe_of, seed):
    features, labels = clouds(100, classes=4, spread=3.0, seed=seed)
    given, flipped = flip(labels, 0.05, seed)
    pack = pack_of(features, given)
    rows = np.arange(len(labels))
    found = label_issues(pack, rows, doubted_twice(probe_of(pack), rows, alone(pack), AuditParams()))
    right = flipped[[int(path[:4]) for path in found["path"]]]
    assert right.sum() >= 0.8 * flipped.sum()
    assert (~right).sum() <= 0.2 * len(found)


def test_a_suspect_has_its_label_the_suggestion_and_both_probabilities(pack_of):
    pack = pack_of(np.zeros((6, 2)), list("aabbba"))
    p_NK = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.1, 0.9], [0.2, 0.8], [0.02, 0.98]])
    found = label_issues(pack, np.arange(6), p_NK)
    assert list(found.columns) == COLUMNS
    assert found.iloc[0].to_dict() == {
        "image_id": f"{5:032x}",
        "path": "0005.png",
        "split": "train",
        "label": "a",
        "suggested": "b",
        "score": 0.02,
        "p_label": 0.02,
        "p_suggested": 0.98,
    }


def test_the_worst_suspect_comes_first(pack_of):
    said, given = np.array([0] * 10 + [1] * 10), np.array([1, 1] + [0] * 8 + [1] * 10)
    p_NK = sure(said, 2)
    p_NK[1] = [0.99, 0.01]
    found = label_issues(pack_of(np.zeros((20, 2)), np.array(["a", "b"])[given]), np.arange(20), p_NK)
    assert list(found["path"]) == ["0001.png", "0000.png"]


def test_an_image_that_could_not_be_held_out_is_not_suspected(pack_of):
    p_NK = np.array([[0.9, 0.1]] * 4 + [[0.1, 0.9]] * 4 + [[np.nan, np.nan]])
    assert label_issues(pack_of(np.zeros((9, 2)), list("aaaabbbba")), np.arange(9), p_NK).empty


def test_where_no_image_could_be_held_out_none_is_suspected(pack_of):
    found = label_issues(pack_of(np.zeros((2, 2)), list("ab")), np.arange(2), np.full((2, 2), np.nan))
    assert list(found.columns) == COLUMNS
    assert found.empty


def test_of_several_classes_the_suggestion_is_the_label_with_the_doubted_marks_turned(pack_of):
    pack = pack_of(np.zeros((6, 2)), ["a", "a", "a|b", "b", "b", "b"], task="multilabel")
    p_NK = np.array([[0.9, 0.95], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    found = label_issues(pack, np.arange(6), p_NK)
    assert list(found["path"]) == ["0000.png"]
    assert found.loc[0, "suggested"] == "a|b"
    assert found.loc[0, "p_label"] == pytest.approx(0.05)


def test_of_numbers_the_suggestion_is_what_was_predicted(pack_of):
    y_N = np.array([1.0, 2.0, 3.0, 4.0, 50.0])
    output = np.array([1.1, 1.9, 3.2, 3.9, 5.0])[:, None]
    found = label_issues(pack_of(np.zeros((5, 2)), y_N, task="regression"), np.arange(5), output)
    assert list(found["path"]) == ["0004.png"]
    assert found.loc[0, "suggested"] == "5"
    assert found.loc[0, "score"] < -3.5


def test_a_group_is_judged_by_models_that_have_seen_none_of_it(pack_of, probe_of):
    """Ten images of a patient look alike and have one wrong label: together they would vouch for each other."""
    rng = np.random.default_rng(0)
    x_ND = np.concatenate([rng.normal(size=(60, 4)), rng.normal(size=(60, 4))]) * 0.3
    x_ND[:60, 0] += 2
    x_ND[60:, 0] -= 2
    x_ND[:10, 1] += 3
    labels = np.array(["b"] * 10 + ["a"] * 50 + ["b"] * 60)
    groups = ["patient"] * 10 + [f"other {i}" for i in range(110)]
    rows = np.arange(120)

    def found(group):
        pack = pack_of(x_ND, labels, group=group)
        return set(
            label_issues(pack, rows, doubted_twice(probe_of(pack, 1e-3), rows, alone(pack), AuditParams()))["path"]
        )

    assert len(found(groups) & {f"{i:04}.png" for i in range(10)}) >= 8
    assert not found(None)


def test_of_several_classes_marks_are_counted_and_not_images(pack_of):
    """Right marks and true probabilities: nearly every image of twenty classes has one that chance makes look wrong."""
    rng = np.random.default_rng(0)
    p_NK = rng.beta(0.5, 0.5, size=(300, 20))
    names = list("abcdefghijklmnopqrst")
    labels = [
        "|".join(name for name, has in zip(names, row, strict=True) if has) for row in rng.random((300, 20)) < p_NK
    ]
    pack = pack_of(np.zeros((300, 2)), labels, task="multilabel")
    found = suspected(pack, np.arange(300), p_NK)
    assert found.shape == (300, 20)
    assert found.any(axis=1).mean() > 0.5
    assert found.mean() < 0.1


def test_of_several_classes_a_doubted_mark_takes_no_image_from_what_is_learned(pack_of):
    pack = pack_of(np.zeros((40, 2)), ["a", "b"] * 20, task="multilabel")
    learned = []

    class Wrong:
        def __init__(self):
            self.pack = pack

        def __call__(self, rows, asked):
            learned.append(len(rows))
            p_NK = pack.targets(asked) * 0.8 + 0.1
            return np.where(asked[:, None] < 4, 1 - p_NK, p_NK)

    assert suspected(pack, np.arange(40), doubted_twice(Wrong(), np.arange(40), alone(pack), AuditParams())).sum() == 8
    assert learned == [32] * 5


def labels_of(p_NK, seed):
    """Right labels of images that have these probabilities."""
    return np.array([np.random.default_rng([seed, i]).choice(len(p), p=p) for i, p in enumerate(p_NK)])


def test_how_many_right_labels_would_be_suspected_is_told_by_drawing_them(pack_of):
    p_NK = np.random.default_rng(0).dirichlet([0.3] * 10, 2000)
    y_N = labels_of(p_NK, 1)
    pack = pack_of(np.zeros((2000, 2)), np.array(list("abcdefghij"))[y_N])
    expected = wrong_classes(p_NK, y_N).sum()
    assert expected > 40
    assert by_chance(pack, np.arange(2000), p_NK, 0) == pytest.approx(expected, rel=0.25)


def test_of_images_that_are_told_surely_next_to_none_is_suspected_by_chance(pack_of):
    codes = np.arange(300) % 3
    pack = pack_of(np.zeros((300, 2)), np.array(list("abc"))[codes])
    assert by_chance(pack, np.arange(300), sure(codes, 3, 0.999), 0) < 2


def test_what_could_not_be_judged_is_not_suspected_by_chance(pack_of):
    pack = pack_of(np.zeros((2, 2)), list("ab"))
    assert by_chance(pack, np.arange(2), np.full((2, 2), np.nan), 0) == 0


def test_near_copies_are_held_out_together_with_their_groups(pack_of):
    pack = pack_of(np.zeros((40, 2)), ["a", "b"] * 20, group=["x", "x"] + [None] * 38)
    picture_N = np.arange(40)
    picture_N[39] = 1  # a near-copy of an image of the group
    asked_for = []

    class Noting:
        def __init__(self):
            self.pack = pack

        def __call__(self, rows, asked):
            asked_for.append(set(asked))
            assert not set(rows) & set(asked)
            return np.full((len(asked), 2), 0.5)

    doubted_twice(Noting(), np.arange(40), whole_units(pack, picture_N), AuditParams())
    assert [asked for asked in asked_for if 0 in asked] == [asked for asked in asked_for if {0, 1, 39} <= asked]
