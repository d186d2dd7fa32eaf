import numpy as np
import pandas as pd
import pytest

from graft.tasks.preprocess import splits as module
from graft.tasks.preprocess.pins import PIN_COLUMNS
from graft.tasks.preprocess.splits import adopt, assign, place, torn

NO_PINS = pd.DataFrame(
    {"seed": pd.Series(dtype="int64"), "key": pd.Series(dtype=object), "split": pd.Series(dtype=object)}
)
SEEDS = range(10)


def random_images(seed, classes=5, most=12, least=1, repeat=0.2):
    """Images of classes of very different sizes, some of which share their key with another of their class."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(classes):
        for n in range(rng.integers(least, most + 1)):
            key = f"{seed}-{k}-{n}"
            rows += [(key, f"class{k}", None)] * (2 if rng.random() < repeat else 1)
    return pd.DataFrame(rows, columns=["key", "label", "split"]).sample(frac=1, random_state=seed, ignore_index=True)


def split_of(images, pins=NO_PINS, val=0.15, test=0.15, seed=0):
    pixels = images["pixels"] if "pixels" in images else images["key"]
    return assign(images.assign(pixels=pixels), val, test, seed, pins)


def grouped_images(seed, classes=4, groups=12, pictures=60, each=30):
    """Images in groups that know no class, many of them copies of a picture that other groups have too."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"group:{rng.integers(groups)}", f"class{rng.integers(classes)}", None, f"{rng.integers(pictures)}")
        for _ in range(classes * each)
    ]
    return pd.DataFrame(rows, columns=["key", "label", "split", "pixels"])


def by_hash(key, val=0.15, test=0.15, seed=0):
    at = place(key, seed)
    return "test" if at < test else "val" if at < test + val else "train"


def by_key(images, splits):
    return dict(zip(images["key"], splits, strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_class_of_three_keys_or_more_has_one_in_each_split(seed):
    images = random_images(seed)
    splits, _ = split_of(images, seed=seed)
    for _, rows in images.assign(split=splits).groupby("label"):
        if rows["key"].nunique() >= 3:
            assert set(rows["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize("seed", SEEDS)
def test_images_of_one_key_stay_together(seed):
    images = random_images(seed, repeat=0.7)
    splits, _ = split_of(images)
    assert (images.assign(split=splits).groupby("key")["split"].nunique() == 1).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_image_never_changes_its_split_when_images_are_added(seed):
    images = random_images(seed, least=3, most=40)
    first = images.drop_duplicates("key").groupby("label", group_keys=False).head(3)
    before, pins = split_of(first)
    seen = by_key(first, before)
    for share in (0.3, 0.6, 1.0):
        now = pd.concat([first, images.drop(first.index).head(round(share * len(images)))])
        splits, pins = split_of(now, pins)
        assert {key: by_key(now, splits)[key] for key in seen} == seen
        seen = by_key(now, splits)


def test_an_image_of_a_class_of_two_never_changes_its_split_when_the_class_grows():
    for number in range(20):
        images = pd.DataFrame({"key": [f"{number}-{n}" for n in range(3)], "label": "a", "split": None})
        two = images.head(2)
        before, pins = split_of(two)
        after, _ = split_of(images, pins)
        assert by_key(two, before).items() <= by_key(images, after).items()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_split_does_not_depend_on_the_order_of_the_images(seed):
    images = random_images(seed)
    turned = images.iloc[::-1]
    assert by_key(images, split_of(images)[0]) == by_key(turned, split_of(turned)[0])


def test_another_seed_is_another_split():
    images = random_images(1, most=60, least=50)
    assert list(split_of(images, seed=0)[0]) != list(split_of(images, seed=1)[0])


def test_the_same_seed_is_the_same_split():
    images = random_images(1, most=60, least=50)
    assert list(split_of(images, seed=4)[0]) == list(split_of(images, seed=4)[0])


def test_shares_are_about_those_asked_for():
    images = pd.DataFrame({"key": [str(n) for n in range(4000)], "label": "a", "split": None})
    shares = split_of(images, val=0.2, test=0.3)[0].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.3, abs=0.03)
    assert shares["val"] == pytest.approx(0.2, abs=0.03)


def test_a_larger_validation_share_leaves_the_test_as_it_is():
    images = random_images(2, most=60, least=50)
    few, many = split_of(images, val=0.1)[0], split_of(images, val=0.3)[0]
    assert list(few == "test") == list(many == "test")


def test_a_place_lies_between_zero_and_one_and_is_spread_evenly():
    places = np.array([place(str(n), 0) for n in range(2000)])
    assert ((places >= 0) & (places < 1)).all()
    assert np.histogram(places, 10, (0, 1))[0].min() > 150


def test_a_given_test_split_is_respected():
    images = random_images(3, least=6, most=30)
    images["split"] = ["test" if n % 3 == 0 else "train" for n in range(len(images))]
    images["split"] = images.groupby("key")["split"].transform("min")
    splits, _ = split_of(images)
    assert list(splits == "test") == list(images["split"] == "test")


def test_validation_is_taken_out_of_training_where_only_a_test_is_given():
    images = pd.DataFrame({"key": [str(n) for n in range(60)], "label": "a", "split": ["train"] * 40 + ["test"] * 20})
    splits, _ = split_of(images)
    assert set(splits[:40]) == {"train", "val"}
    assert set(splits[40:]) == {"test"}


def test_three_given_splits_are_kept_to_the_image():
    images = pd.DataFrame(
        {"key": list("abcdef"), "label": "a", "split": ["train", "train", "val", "val", "test", "test"]}
    )
    splits, pins = split_of(images)
    assert list(splits) == list(images["split"])
    assert len(pins) == 0


def test_given_splits_are_kept_even_where_they_tear_a_group():
    images = pd.DataFrame({"key": ["x", "x", "y", "z"], "label": "a", "split": ["train", "test", "train", "val"]})
    assert list(split_of(images)[0]) == ["train", "test", "train", "val"]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_image_moves_when_copies_arrive_in_other_groups(seed):
    images = grouped_images(seed)
    pins, seen = NO_PINS, {}
    for count in (5, 12, 30, 60, 120):
        now = images.head(count)
        splits, pins = split_of(now, pins)
        assert all(splits[place] == split for place, split in seen.items())
        assert (now.assign(split=splits).groupby("key")["split"].nunique() == 1).all()
        seen = dict(splits)


@pytest.mark.parametrize("seed", SEEDS)
def test_copies_in_other_splits_are_held_out_and_nothing_else(seed):
    images = grouped_images(seed)
    placed = images.assign(split=split_of(images)[0], given=None)
    out = torn(placed)
    splits_of_pixels = placed.groupby("pixels")["split"].transform("nunique")
    assert list(out) == list(splits_of_pixels > 1)
    assert 0 < out.sum() < len(out)


def test_of_copies_in_given_splits_the_one_nearest_to_the_test_stays():
    images = pd.DataFrame({"pixels": ["x", "x", "x", "y"], "split": ["train", "test", "val", "train"]})
    assert list(torn(images.assign(given=images["split"]))) == [True, False, True, False]


def test_copies_given_for_training_of_which_the_hash_takes_one_for_validation_are_both_held_out():
    images = pd.DataFrame({"pixels": ["x", "x"], "split": ["train", "val"], "given": ["train", "train"]})
    assert list(torn(images)) == [True, True]


def test_a_copy_placed_by_hash_yields_to_one_that_is_given():
    images = pd.DataFrame({"pixels": ["x", "x"], "split": ["train", "test"], "given": [None, "test"]})
    assert list(torn(images)) == [True, False]


def test_a_group_of_two_classes_is_not_moved_to_fill_a_split_of_a_new_class():
    keys = [key for key in map(str, range(100)) if place(key, 0) > 0.3][:6]  # all would be trained on
    images = pd.DataFrame({"key": keys, "label": ["a"] * 6, "split": None})
    before, pins = split_of(images)
    joined = pd.DataFrame({"key": [keys[0], keys[1], "x", "y"], "label": "b", "split": None})
    after, _ = split_of(pd.concat([images, joined], ignore_index=True), pins)
    assert list(after[:6]) == list(before)


def test_a_split_that_the_data_bring_is_not_filled_from_their_training_images():
    images = pd.DataFrame({"key": list("abcdef"), "label": ["a"] * 3 + ["b"] * 3, "split": ["train"] * 5 + ["test"]})
    splits, _ = split_of(images)
    assert set(splits[:3]) == {"train", "val"}


def test_the_images_of_a_large_class_are_split_by_their_hash_and_not_listed():
    images = pd.DataFrame({"key": [str(n) for n in range(500)], "label": "a", "split": None})
    splits, pins = split_of(images)
    assert list(splits) == [by_hash(key) for key in images["key"]]
    assert dict(zip(pins["key"], pins["split"])) == {"class:a": "hash", "fractions": "val 0.15 test 0.15"}


def test_the_images_of_a_small_class_are_listed():
    images = pd.DataFrame({"key": [str(n) for n in range(20)], "label": "a", "split": None})
    splits, pins = split_of(images)
    assert list(pins.columns) == list(PIN_COLUMNS)
    assert dict(zip(pins["key"], pins["split"])) == {
        **by_key(images, splits),
        "class:a": "listed",
        "fractions": "val 0.15 test 0.15",
    }


def test_a_move_in_a_large_class_is_written_to_the_pins():
    keys = [key for key in map(str, range(300)) if place(key, 0) > 0.3][:60]  # all would be trained on
    images = pd.DataFrame({"key": keys, "label": "a", "split": None})
    splits, pins = split_of(images)
    listed = pins[pins["key"].isin(keys)]
    assert sorted(listed["split"]) == ["test", "val"]
    moved = by_key(images, splits)
    assert all(moved[row.key] == row.split for row in listed.itertuples())


def test_small_classes_have_their_shares_whatever_the_seed():
    images = pd.DataFrame({"key": [f"{n}" for n in range(200)], "split": None})
    images["label"] = [f"class{n % 10}" for n in range(200)]
    for seed in range(20):
        table = pd.crosstab(images["label"], split_of(images, seed=seed)[0])
        assert (table["test"] == 3).all()
        assert (table["val"] == 3).all()


def test_a_class_keeps_its_shares_while_it_grows_image_by_image():
    pins = NO_PINS
    for count in range(3, 40):
        images = pd.DataFrame({"key": [f"{n}" for n in range(count)], "label": "a", "split": None})
        splits, pins = split_of(images, pins, val=0.2, test=0.2)
        assert all(abs((splits == name).sum() - max(1, 0.2 * count)) < 1 for name in ("val", "test"))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_image_moves_while_a_class_outgrows_the_table_and_shrinks_again(seed):
    keys = np.random.default_rng(seed).permutation([f"{seed}-{n}" for n in range(120)])
    pins, seen = NO_PINS, {}
    for count in (5, 25, 39, 40, 120, 20):
        images = pd.DataFrame({"key": keys[:count] if count != 20 else keys[-20:], "label": "a", "split": None})
        splits, pins = split_of(images, pins)
        now = by_key(images, splits)
        assert all(seen.get(key, split) == split for key, split in now.items())
        seen |= now


@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_of_most_images_is_trained_on(seed):
    images = pd.DataFrame({"key": ["group:giant"] * 700 + [f"{n}" for n in range(300)], "split": None})
    images["label"] = [f"class{n % 5}" for n in range(1000)]
    splits, pins = split_of(images, seed=seed)
    assert set(splits[:700]) == {"train"}
    assert set(splits[700:]) == {"train", "val", "test"}
    assert pins.loc[pins["key"] == "group:giant", "split"].tolist() == ["train"]


def test_a_group_that_grows_to_most_images_does_not_move():
    few = pd.DataFrame({"key": [f"group:{n // 2}" for n in range(200)], "label": "a", "split": None})
    splits, pins = split_of(few)
    tested = by_key(few, splits)
    grown = next(key for key, split in tested.items() if split == "test")
    many = pd.concat([few, pd.DataFrame({"key": [grown] * 1000, "label": "a", "split": None})], ignore_index=True)
    assert by_key(many, split_of(many, pins)[0]) == tested


def test_groups_of_many_sizes_give_each_split_its_share_of_groups_and_images():
    rng = np.random.default_rng(0)
    for seed in range(10):
        sizes = rng.integers(5, 60, 60)
        keys = np.repeat([f"group:{seed}-{n}" for n in range(60)], sizes)
        images = pd.DataFrame({"key": keys, "label": rng.choice(list("ab"), len(keys)), "split": None})
        images = images.assign(assigned=split_of(images)[0])
        assert images["assigned"].value_counts(normalize=True)["test"] == pytest.approx(0.15, abs=0.08)
        assert images.drop_duplicates("key")["assigned"].value_counts()["test"] == pytest.approx(9, abs=1)


def test_very_many_groups_are_split_by_their_hash(monkeypatch):
    monkeypatch.setattr(module, "MOST_GROUPS", 50)
    images = pd.DataFrame({"key": [f"group:{n // 2}" for n in range(200)], "label": "a", "split": None})
    splits, pins = split_of(images)
    assert list(splits) == [by_hash(key) for key in images["key"]]
    assert set(pins["key"]) == {"class:a", "groups", "fractions"}


def test_a_larger_test_share_takes_validation_images_and_no_test_image_is_trained_on():
    images = pd.DataFrame(
        {"key": [f"{n}" for n in range(100)], "split": None, "label": [f"{n % 5}" for n in range(100)]}
    )
    before, pins = split_of(images)
    after, pins = split_of(images, pins, test=0.3)
    assert pd.crosstab(images["label"], after)["test"].tolist() == [6] * 5
    assert set(after[before == "test"]) == {"test"}
    assert (after[before == "val"] == "test").mean() > 0.5
    again, same = split_of(images, pins, test=0.3)
    assert list(again) == list(after)
    assert len(same) == len(pins)


def test_pins_of_before_keep_every_image_where_it_was():
    """Of an earlier version: hashes, and the moves of classes with an empty split."""
    images = random_images(3, most=60)
    keys = [key for key in map(str, range(100)) if place(key, 0) > 0.3][:8]
    moved = pd.DataFrame({"key": keys, "label": "moved", "split": None})
    images = pd.concat([images, moved], ignore_index=True)
    old = pd.DataFrame({"seed": [0, 0], "key": keys[:2], "split": ["test", "val"]})
    before = {**{key: by_hash(key) for key in images["key"]}, keys[0]: "test", keys[1]: "val"}
    full = images.groupby("label").filter(lambda rows: {before[key] for key in rows["key"]} == {"train", "val", "test"})
    assert full["label"].nunique() >= 3
    adopted = adopt(full.assign(pixels=full["key"]), 0.15, 0.15, 0, old)
    splits, pins = split_of(full, adopted)
    assert by_key(full, splits) == {key: before[key] for key in full["key"]}
    assert len(pins) == len(adopted)

    more = pd.concat([full, images_like(full, "new")], ignore_index=True)
    later, _ = split_of(more, pins)
    assert by_key(full, later[: len(full)]) == by_key(full, splits)


def images_like(images, prefix):
    """As many images of the same classes."""
    return images.assign(key=[f"{prefix}-{n}" for n in range(len(images))])


def test_a_second_run_adds_no_pins():
    images = random_images(5)
    splits, pins = split_of(images)
    again, more = split_of(images, pins)
    assert list(again) == list(splits)
    pd.testing.assert_frame_equal(more, pins)


def test_pins_of_another_seed_have_no_effect():
    images = random_images(6, most=30, least=20)
    pins = pd.DataFrame({"seed": 1, "key": images["key"].unique(), "split": "val"})
    assert list(split_of(images, pins)[0]) == list(split_of(images)[0])


def test_a_pinned_image_stays_where_it_was_put():
    images = random_images(6, most=30, least=20)
    key = next(k for k, s in by_key(images, split_of(images)[0]).items() if s == "train")
    pins = pd.DataFrame({"seed": [0], "key": [key], "split": ["test"]})
    assert by_key(images, split_of(images, pins)[0])[key] == "test"


def images_of_several(seed, classes=6, most=30):
    """Images of no, one or several classes, some of which are rare and seldom alone."""
    rng = np.random.default_rng(seed)
    often = rng.uniform(0.03, 0.7, classes)
    rows = [
        (f"{seed}-{n}", "|".join(f"class{k}" for k in np.flatnonzero(rng.random(classes) < often)), None)
        for n in range(rng.integers(8, most + 1))
    ]
    return pd.DataFrame(rows, columns=["key", "label", "split"])


def split_of_several(images, pins=NO_PINS, seed=0):
    return assign(images.assign(pixels=images["key"]), 0.15, 0.15, seed, pins, "multilabel")


def lacking(images, splits):
    """class -> the splits in which it has no image."""
    rows = images.assign(split=splits, label=images["label"].str.split("|")).explode("label")
    return {name: {"train", "val", "test"} - set(part["split"]) for name, part in rows.groupby("label") if name}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_class_of_three_images_of_its_own_has_one_in_each_split_where_images_have_several(seed):
    images = images_of_several(seed)
    splits, _ = split_of_several(images)
    alone = images["label"].value_counts()
    found = lacking(images, splits)
    assert all(not found[name] for name in found if alone.get(name, 0) >= 3)


def test_a_class_that_never_stands_alone_is_filled_from_images_of_several():
    images = pd.DataFrame({"key": [f"x{n}" for n in range(40)], "split": None})
    images["label"] = ["common|rare" if n < 4 else "common" for n in range(40)]
    gaps = [lacking(images, split_of_several(images, seed=seed)[0]) for seed in range(40)]
    assert all(found == {"common": set(), "rare": set()} for found in gaps)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_move_for_one_class_takes_no_other_class_out_of_a_split(seed):
    images = images_of_several(seed, most=14)
    hashed = [by_hash(key) for key in images["key"]]
    before, after = lacking(images, hashed), lacking(images, split_of_several(images)[0])
    assert all(after[name] <= before[name] for name in after if images["label"].str.contains(name).sum() >= 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_image_of_several_classes_never_changes_its_split_when_images_are_added(seed):
    images = images_of_several(seed, most=40)
    seen, pins = {}, NO_PINS
    for count in (3, 5, 8, 12, 20, 40):
        now = images.head(count)
        splits, pins = split_of_several(now, pins)
        assert {key: by_key(now, splits)[key] for key in seen} == seen
        seen = by_key(now, splits)


def test_images_of_no_class_are_placed_by_their_hash():
    images = pd.DataFrame({"key": [f"k{n}" for n in range(50)], "label": "", "split": None})
    splits, pins = split_of_several(images)
    assert len(pins) == 0
    assert list(splits) == [by_hash(key) for key in images["key"]]
    assert set(splits) == {"train", "val", "test"}


@pytest.mark.parametrize("seed", SEEDS)
def test_three_numbers_or_more_have_one_in_each_split(seed):
    images = pd.DataFrame({"key": [f"{seed}-{n}" for n in range(3)], "label": ["1.0", "2.0", "3.0"], "split": None})
    splits, pins = assign(images.assign(pixels=images["key"]), 0.15, 0.15, 0, NO_PINS, "regression")
    assert set(splits) == {"train", "val", "test"}
    more = pd.DataFrame({"key": [f"{seed}-{n}" for n in range(9)], "label": "1.0", "split": None})
    later, _ = assign(more.assign(pixels=more["key"]), 0.15, 0.15, 0, pins, "regression")
    assert list(later)[:3] == list(splits)


@pytest.mark.parametrize("seed", SEEDS)
def test_three_groups_of_numbers_have_one_in_each_split(seed):
    images = pd.DataFrame({"key": [f"group:{seed}-{n // 2}" for n in range(6)], "split": None})
    images = images.assign(label=[f"{n}.0" for n in range(6)], pixels=[f"{n}" for n in range(6)])
    splits, _ = assign(images, 0.15, 0.15, 0, NO_PINS, "regression")
    assert set(splits) == {"train", "val", "test"}
    assert (images.assign(split=splits).groupby("key")["split"].nunique() == 1).all()


def inspected(good=60, defects=20, split=None, kinds=2, prefix=""):
    """Good images, and defects of some kinds."""
    rows = [(f"{prefix}good{n}", "good", split) for n in range(good)]
    rows += [(f"{prefix}bad{n}", f"kind{n % kinds}", split) for n in range(defects)]
    return pd.DataFrame(rows, columns=["key", "label", "split"]).assign(pixels=lambda table: table["key"])


def split_of_anomalies(images, pins=NO_PINS, val=0.15, test=0.15):
    return assign(images, val, test, 0, pins, "anomaly")


@pytest.mark.parametrize("defects", [1, 2, 3, 20, 300])
def test_defects_never_train(defects):
    images = inspected(defects=defects)
    splits, _ = split_of_anomalies(images)
    bad = images["label"] != "good"
    assert "train" not in set(splits[bad])
    assert set(splits[~bad]) == {"train", "val", "test"}
    assert "test" in set(splits[bad])


def test_defects_are_shared_in_the_proportion_of_validation_and_test():
    images = inspected(good=40, defects=600, kinds=1)
    splits, _ = split_of_anomalies(images, val=0.1, test=0.3)
    assert 0.7 < (splits[images["label"] != "good"] == "test").mean() < 0.8


def test_good_images_are_split_as_if_there_were_no_defects():
    images = inspected(good=200, defects=0)
    more = inspected(good=200, defects=50)
    assert list(split_of_anomalies(images)[0]) == list(split_of_anomalies(more)[0])[:200]


def test_defects_stay_where_they_are_when_more_come():
    few, more = inspected(defects=7), inspected(good=90, defects=90)
    first, pins = split_of_anomalies(few)
    later, _ = split_of_anomalies(more, pins)
    now = by_key(more, later)
    assert {key: now[key] for key in few["key"]} == by_key(few, first)


def test_a_given_test_leaves_good_images_to_validate_on():
    images = pd.concat([inspected(defects=0, split="train"), inspected(good=10, split="test", prefix="t")])
    splits, _ = split_of_anomalies(images.reset_index(drop=True))
    assert set(splits[:60]) == {"train", "val"}
    assert set(splits[60:]) == {"test"}


@pytest.mark.parametrize("others", [["test"], ["val", "test"], ["val"]])
def test_a_defect_that_is_given_for_training_is_used_in_validation(others):
    parts = [inspected(good=20, defects=3, split="train")]
    parts += [inspected(good=20, defects=2, split=split, prefix=split) for split in others]
    images = pd.concat(parts, ignore_index=True)
    splits, _ = split_of_anomalies(images)
    given_to_train = images["split"].eq("train") & images["label"].ne("good")
    assert set(splits[given_to_train]) == {"val"}


def test_a_group_with_a_defect_never_trains():
    images = inspected(good=40, defects=6)
    images.loc[[0, 1, 2, 41], "key"] = "group:a"
    splits, _ = split_of_anomalies(images)
    assert set(splits[images["key"] == "group:a"]) < {"val", "test"}


def test_an_image_that_is_found_to_have_a_defect_leaves_training():
    images = inspected(good=30, defects=0)
    splits, pins = split_of_anomalies(images)
    trained = splits.index[splits == "train"][0]
    images.loc[trained, "label"] = "crack"
    later, again = split_of_anomalies(images, pins)
    assert later[trained] == "test"
    assert list(later.drop(trained)) == list(splits.drop(trained))
    assert list(split_of_anomalies(images, again)[0]) == list(later)


def test_changed_shares_move_no_defect_to_training():
    images = inspected(defects=30)
    _, pins = split_of_anomalies(images)
    splits, _ = split_of_anomalies(images, pins, val=0.3, test=0.1)
    assert set(splits[images["label"] != "good"]) == {"val", "test"}
