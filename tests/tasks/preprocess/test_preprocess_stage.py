import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from projects import draw_tile, draw_tiles
from sharded import shard_files

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import md5
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.manifest import COLUMNS, read_manifest
from graft.tasks.preprocess import rejections, stage
from graft.tasks.preprocess.check import look
from graft.tasks.preprocess.params import PreprocessParams
from graft.tasks.preprocess.scan import list_files
from graft.tasks.preprocess.splits import place


@pytest.fixture
def fresh(tmp_path, fill_classes):
    """A project with ten images of each of three classes."""
    paths = Paths(tmp_path)
    fill_classes(paths.raw)
    return paths


@pytest.fixture
def preprocess(run_stage):
    def run(paths, **changes):
        return run_stage("preprocess", paths, **{"max_rejected": 20, **changes})

    return run


def manifest(paths):
    return read_manifest(paths.manifest).set_index("path")


def reasons(paths):
    table = pd.read_parquet(paths.manifest / "rejected.parquet")
    return dict(zip(table["path"], table["reason"], strict=True))


def test_every_sound_image_is_in_the_manifest_with_its_label(fresh, preprocess):
    preprocess(fresh)
    table = manifest(fresh)
    assert len(table) == 30
    assert all(label == path.split("/")[0] for path, label in table["label"].items())


def test_the_manifest_has_its_columns_and_is_sorted_by_path(fresh, preprocess):
    preprocess(fresh)
    table = read_manifest(fresh.manifest)
    assert list(table.columns) == list(COLUMNS)
    assert list(table["path"]) == sorted(table["path"])


def test_an_image_is_known_by_the_md5_of_its_file(fresh, preprocess):
    preprocess(fresh)
    content = (fresh.raw / "red/000.png").read_bytes()
    assert manifest(fresh).loc["red/000.png", "image_id"] == hashlib.md5(content).hexdigest()


def stray_text(paths):
    (paths.raw / "red/notes.txt").write_text("notes")
    return "red/notes.txt", "not an image"


def truncated_jpeg(paths):
    with Image.open(paths.raw / "red/000.png") as image:
        image.resize((90, 90)).save(paths.raw / "red/cut.jpg")
    content = (paths.raw / "red/cut.jpg").read_bytes()
    (paths.raw / "red/cut.jpg").write_bytes(content[: len(content) // 2])
    return "red/cut.jpg", "damaged: "


def placeholder_gif(paths):
    image = Image.new("P", (40, 40), 0)
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.paste(1, (10, 10, 18, 18))
    image.save(paths.raw / "red/missing.gif")
    return "red/missing.gif", "placeholder: "


def one_pixel(paths):
    Image.new("RGB", (1, 1)).save(paths.raw / "red/pixel.png")
    return "red/pixel.png", "too small: 1 x 1 px"


def hidden_file(paths):
    shutil.copy(paths.raw / "red/000.png", paths.raw / "red/.000.png")
    return "red/.000.png", "hidden file"


def blank_image(paths):
    Image.new("RGB", (32, 32), "white").save(paths.raw / "red/blank.png")
    return "red/blank.png", "blank: "


def empty_file(paths):
    (paths.raw / "red/empty.png").touch()
    return "red/empty.png", "empty file"


def outside_the_classes(paths):
    with Image.open(paths.raw / "red/000.png") as image:
        image.rotate(90).save(paths.raw / "lost.png")
    return "lost.png", "no label: "


@pytest.mark.parametrize(
    "spoil",
    [
        stray_text,
        truncated_jpeg,
        placeholder_gif,
        one_pixel,
        hidden_file,
        blank_image,
        empty_file,
        outside_the_classes,
    ],
    ids=lambda f: f.__name__,
)
def test_what_is_no_image_to_learn_from_is_rejected_with_its_reason(fresh, preprocess, spoil):
    path, reason = spoil(fresh)
    preprocess(fresh)
    assert list(reasons(fresh)) == [path]
    assert reasons(fresh)[path].startswith(reason)
    assert path not in manifest(fresh).index
    assert len(manifest(fresh)) == 30


def test_the_same_pixels_under_two_labels_are_both_held_out(fresh, preprocess):
    with Image.open(fresh.raw / "red/000.png") as image:
        image.save(fresh.raw / "blue/copy.bmp")
    preprocess(fresh)
    reason = "same pixels under two labels: blue (blue/copy.bmp), red (red/000.png)"
    assert reasons(fresh) == {"blue/copy.bmp": reason, "red/000.png": reason}


def test_a_copy_under_the_same_label_stays_and_shares_its_split(fresh, preprocess):
    for n in range(6):
        shutil.copy(fresh.raw / f"red/{n:03}.png", fresh.raw / f"red/copy{n}.png")
    record = preprocess(fresh)
    table = manifest(fresh)
    assert all(table.loc[f"red/{n:03}.png", "split"] == table.loc[f"red/copy{n}.png", "split"] for n in range(6))
    assert record.metrics["duplicates"] == 6


@pytest.fixture
def given(tmp_path, fill_classes):
    """A project whose data bring their own three splits."""
    paths = Paths(tmp_path)
    fill_classes(tmp_path / "all")
    for file in sorted((tmp_path / "all").rglob("*.png")):
        split = {"0": "val", "1": "val", "2": "test", "3": "test"}.get(file.stem[-1], "train")
        target = paths.raw / split / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    return paths


def test_given_splits_are_kept(given, preprocess):
    preprocess(given)
    assert all(path.split("/")[0] == split for path, split in manifest(given)["split"].items())


def test_an_image_of_the_test_is_taken_out_of_training(given, preprocess):
    shutil.copy(given.raw / "test/red/002.png", given.raw / "train/red/leak.png")
    preprocess(given)
    assert reasons(given) == {"train/red/leak.png": "same pixels as an image of test: test/red/002.png"}
    assert "test/red/002.png" in manifest(given).index


def test_an_image_of_validation_is_taken_out_of_training(given, preprocess):
    shutil.copy(given.raw / "val/red/000.png", given.raw / "train/red/leak.png")
    preprocess(given)
    assert reasons(given) == {"train/red/leak.png": "same pixels as an image of val: val/red/000.png"}


def test_too_many_rejected_files_stop_the_run_and_leave_the_earlier_manifest_alone(fresh, preprocess, tree_bytes):
    preprocess(fresh)
    before = tree_bytes(fresh.manifest), fresh.pins.read_bytes()
    for n in range(3):
        (fresh.raw / f"red/{n}.txt").write_text("text")
    with pytest.raises(DataError, match="3 of 33: 3 not an image"):
        preprocess(fresh, max_rejected=0.05)
    assert (tree_bytes(fresh.manifest), fresh.pins.read_bytes()) == before


def test_the_files_that_stopped_the_run_are_listed(fresh, preprocess):
    for n in range(3):
        (fresh.raw / f"red/{n}.txt").write_text("text")
    with pytest.raises(DataError, match=r"rejected\.csv"):
        preprocess(fresh, max_rejected=2)
    listed = pd.read_csv(fresh.state / "rejected.csv")
    assert list(listed["path"]) == ["red/0.txt", "red/1.txt", "red/2.txt"]


@pytest.mark.parametrize("limit", [2, 0.1])
def test_as_many_rejected_files_as_allowed_do_not_stop_the_run(fresh, preprocess, limit):
    for n in range(2):
        (fresh.raw / f"red/{n}.txt").write_text("text")
    assert preprocess(fresh, max_rejected=limit).metrics["rejected"] == 2


def test_hashes_that_are_known_are_used_and_not_computed_again(fresh, monkeypatch):
    known = {file.relative_to(fresh.raw).as_posix(): md5(file) for file in fresh.raw.rglob("*.png")}
    own = known.pop("red/003.png")
    computed = []
    monkeypatch.setattr(stage, "hash_of", lambda path: computed.append(path.name) or own)
    stage.run(PreprocessParams(), fresh, known)
    assert computed == ["003.png"]
    assert manifest(fresh).loc["green/007.png", "image_id"] == known["green/007.png"]


def test_a_file_that_was_overwritten_after_dvc_hashed_it_is_named(fresh, noise):
    known = {file.relative_to(fresh.raw).as_posix(): md5(file) for file in fresh.raw.rglob("*.png")}
    noise(seed=5).save(fresh.raw / "red/003.png")
    with pytest.raises(DataError, match=r"red/003\.png has changed since it was listed"):
        stage.run(PreprocessParams(), fresh, known)
    assert not fresh.manifest.exists()


def test_a_second_run_decodes_only_what_is_new(fresh, preprocess, noise, monkeypatch):
    preprocess(fresh)
    decoded = []
    monkeypatch.setattr(rejections, "look", lambda path, *rest: decoded.append(path.name) or look(path, *rest))
    noise(seed=77).save(fresh.raw / "red/new.png")
    preprocess(fresh)
    assert decoded == ["new.png"]
    assert len(manifest(fresh)) == 31


def test_another_limit_needs_no_second_look(fresh, preprocess, monkeypatch):
    preprocess(fresh)
    monkeypatch.setattr(rejections, "look", lambda *_: pytest.fail("decoded again"))
    preprocess(fresh, min_side=32)
    assert len(manifest(fresh)) == 30
    with pytest.raises(DataError, match="30 too small"):
        preprocess(fresh, min_side=33)


@pytest.mark.parametrize(
    "name", [".DS_Store", ".cache/a.png", "red/Thumbs.db", "red/desktop.ini", "#recycle/a.png", "lost+found/a.png"]
)
def test_files_that_systems_leave_about_are_hidden(fresh, preprocess, name):
    (fresh.raw / name).parent.mkdir(exist_ok=True)
    (fresh.raw / name).write_bytes(b"whatever")
    preprocess(fresh)
    assert reasons(fresh) == {name: "hidden file"}


def test_a_broken_link_is_rejected_and_does_not_stop_the_run(fresh, preprocess):
    (fresh.raw / "red/gone.png").symlink_to(fresh.raw / "nowhere.png")
    preprocess(fresh)
    assert reasons(fresh)["red/gone.png"].startswith("cannot be read")


@pytest.mark.parametrize(
    "name",
    [
        "a\ttab.png",
        "a\nline.png",
        "\u202egnp.png",
        "\"quoted\", 'too'.png",
        " spaces .png",
        "x" * 251 + ".png",
        "-f.png",
    ],
    ids=["tab", "newline", "right to left", "quotes", "spaces", "255 bytes", "like an option"],
)
def test_a_file_may_have_any_name(fresh, preprocess, noise, name):
    noise(seed=99).save(fresh.raw / "red" / name)
    preprocess(fresh)
    assert manifest(fresh).loc[f"red/{name}", "label"] == "red"


def test_a_second_run_gives_the_same_bytes(fresh, preprocess, tree_bytes):
    preprocess(fresh)
    before = tree_bytes(fresh.manifest), tree_bytes(fresh.plots("preprocess")), fresh.pins.read_bytes()
    preprocess(fresh)
    assert (tree_bytes(fresh.manifest), tree_bytes(fresh.plots("preprocess")), fresh.pins.read_bytes()) == before


def test_no_image_changes_its_split_when_images_are_added(fresh, preprocess, noise):
    preprocess(fresh)
    before = manifest(fresh)["split"]
    for n in range(20):
        noise(seed=9000 + n).save(fresh.raw / f"red/more{n}.png")
    preprocess(fresh)
    assert before.equals(manifest(fresh)["split"][before.index])


@pytest.fixture
def tabled(fresh):
    """The same images with a table instead of folders; the table is the test's to write."""

    def write(**columns):
        files = sorted(file.relative_to(fresh.raw).as_posix() for file in fresh.raw.rglob("*.png"))
        table = pd.DataFrame({"path": files, "label": [f.split("/")[0] for f in files]})
        table = table.assign(**{name: make(table) for name, make in columns.items()})
        table.to_csv(fresh.raw / "labels.csv", index=False)
        return fresh

    return write


def test_a_table_gives_the_labels(tabled, preprocess):
    paths = tabled(label=lambda t: ["even" if int(p[-5]) % 2 == 0 else "odd" for p in t["path"]])
    preprocess(paths)
    assert set(manifest(paths)["label"]) == {"even", "odd"}
    assert "labels.csv" not in reasons(paths)


def test_a_table_gives_the_weights(tabled, preprocess):
    paths = tabled(weight=lambda t: [1 + int(p[-5]) for p in t["path"]])
    preprocess(paths)
    assert manifest(paths).loc["red/004.png", "weight"] == 5.0


def test_a_table_gives_the_splits(tabled, preprocess):
    paths = tabled(split=lambda t: [["train", "train", "val", "test"][int(p[-5]) % 4] for p in t["path"]])
    preprocess(paths)
    assert manifest(paths).loc["red/002.png", "split"] == "val"
    assert manifest(paths).loc["red/003.png", "split"] == "test"
    assert manifest(paths).loc["red/004.png", "split"] == "train"


def test_images_of_one_group_share_their_split(tabled, preprocess):
    paths = tabled(group=lambda t: [f"{p[:3]}{int(p[-5]) // 3}" for p in t["path"]])
    preprocess(paths)
    table = manifest(paths)
    assert table["group"].notna().all()
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert table["split"].nunique() == 3


def test_a_group_that_given_splits_tear_apart_is_named(tabled, preprocess, capsys):
    splits = ["train", "train", "val", "test"]
    preprocess(tabled(split=lambda t: [splits[int(p[-5]) % 4] for p in t["path"]], group=lambda t: t["label"] + "s"))
    assert "separate images of the same group: blues, greens, reds" in capsys.readouterr().err


def test_copies_in_groups_of_other_splits_are_held_out_and_no_group_moves(tabled, preprocess):
    def by_three(table):
        return [f"{path[:3]}{int(path[-5]) // 3}" for path in table["path"]]

    preprocess(tabled(group=by_three))
    before = manifest(tabled(group=by_three))["split"]
    for name in ("red", "green", "blue"):
        first = before[f"{name}/000.png"]
        other = next(n for n in range(9) if before[f"{name}/{n:03}.png"] != first)
        with Image.open(tabled().raw / f"{name}/000.png") as image:
            image.save(tabled().raw / f"{name}/{other:03}.png")
    preprocess(tabled(group=by_three))
    after = manifest(tabled())["split"]
    assert after.equals(before[after.index])
    assert len(reasons(tabled())) == 6
    assert all(reason.startswith("same pixels as an image of ") for reason in reasons(tabled()).values())


def test_a_folder_around_the_classes_is_looked_through_and_told(fresh, preprocess, capsys):
    (fresh.raw / "around").mkdir()
    for name in ("red", "green", "blue"):
        (fresh.raw / name).rename(fresh.raw / "around" / name)
    preprocess(fresh)
    assert set(manifest(fresh)["label"]) == {"red", "green", "blue"}
    assert "around is the only folder; the classes are the folders in it" in capsys.readouterr().err


def test_names_of_classes_that_may_be_mistakes_are_told(fresh, preprocess, capsys):
    (fresh.raw / "green").rename(fresh.raw / "Red")
    preprocess(fresh)
    assert "these classes may be one: `Red`, `red`" in capsys.readouterr().err


def test_a_class_without_a_training_image_is_refused(fresh, preprocess):
    for split, names in (("train", ("red", "green")), ("test", ("blue",))):
        (fresh.raw / split).mkdir()
        for name in names:
            (fresh.raw / name).rename(fresh.raw / split / name)
    with pytest.raises(DataError, match=r"classes without a training image[\s\S]*blue"):
        preprocess(fresh)


def test_fewer_than_two_classes_are_refused(fresh, preprocess):
    for name in ("green", "blue"):
        shutil.rmtree(fresh.raw / name)
    with pytest.raises(DataError, match="fewer than two classes"):
        preprocess(fresh)


def test_nothing_but_rejected_files_is_refused(tmp_path, preprocess):
    paths = Paths(tmp_path)
    (paths.raw / "a").mkdir(parents=True)
    (paths.raw / "a/x.txt").write_text("text")
    with pytest.raises(DataError, match="fewer than two classes"):
        preprocess(paths)


def test_too_few_images_for_three_splits_are_refused(tmp_path, preprocess, noise):
    paths = Paths(tmp_path)
    for n, name in enumerate("ab"):
        (paths.raw / name).mkdir(parents=True)
        noise(seed=n).save(paths.raw / name / "1.png")
    with pytest.raises(DataError, match="no image is left for the split"):
        preprocess(paths)


def test_a_class_too_small_for_three_splits_is_named(fresh, preprocess, noise, capsys):
    (fresh.raw / "rare").mkdir()
    noise(seed=99).save(fresh.raw / "rare/1.png")
    preprocess(fresh)
    assert "classes with too few images to have one in each split: rare" in capsys.readouterr().err


def test_metrics_count_images_classes_splits_and_reasons(fresh, preprocess):
    stray_text(fresh)
    metrics = preprocess(fresh).metrics
    assert (metrics["images"], metrics["classes"], metrics["rejected"]) == (30, 3, 1)
    assert sum(metrics["by_split"].values()) == 30
    assert metrics["by_reason"] == {"not an image": 1}


def test_the_balance_of_the_classes_is_plotted_from_a_table(fresh, preprocess):
    preprocess(fresh)
    table = pd.read_csv(fresh.plots("preprocess") / "classes.csv")
    assert table.groupby("label")["images"].sum().to_dict() == {"blue": 10, "green": 10, "red": 10}


def test_hidden_files_are_listed_but_do_not_stop_the_run(fresh, preprocess):
    for number in range(5):
        (fresh.raw / f".litter{number}").write_bytes(b"x")
    preprocess(fresh, max_rejected=0)
    assert set(reasons(fresh).values()) == {"hidden file"}


def test_the_manifest_says_as_how_many_channels_images_are_read(fresh, preprocess):
    preprocess(fresh, channels=1)
    assert set(manifest(fresh)["channels"]) == {1}


def test_a_file_of_other_bands_is_rejected_with_the_reason(fresh, preprocess):
    np.save(fresh.raw / "red" / "bands.npy", np.arange(32 * 32 * 5, dtype=np.uint8).reshape(32, 32, 5))
    preprocess(fresh)
    assert reasons(fresh) == {"red/bands.npy": "wrong form: 5 bands (array), needed 3"}


def test_a_number_of_channels_that_no_image_has_stops_the_run_and_leaves_no_manifest(fresh, preprocess):
    with pytest.raises(DataError, match="max_rejected") as stopped:
        preprocess(fresh, channels=5, max_rejected=0.05)
    assert stopped.value.got == "30 of 30: 30 wrong form"
    assert "set `preprocess.channels`" in stopped.value.todo
    assert not fresh.manifest.exists()


def task_and_label(paths, image):
    """The tasks in the manifest, and the label of an image."""
    table = manifest(paths)
    return set(table["task"]), table.loc[image, "label"]


def several(table):
    """All have `bright`, three in five have `odd`; with three in five of the others, `red`."""
    numbers = [int(path[-5]) for path in table["path"]]
    return [
        "|".join(["bright", *["odd"] * (n % 5 < 3), *["red"] * (p[0] == "r")]) for n, p in zip(numbers, table["path"])
    ]


def test_an_image_may_have_several_classes(tabled, preprocess):
    paths = tabled(label=several)
    record = preprocess(paths, task="multilabel")
    assert task_and_label(paths, "red/004.png") == ({"multilabel"}, "bright|red")
    assert record.metrics["classes"] == 3
    assert record.dataset.profile["classes"] == {"bright": 30, "odd": 18, "red": 10}
    balance = pd.read_csv(paths.plots("preprocess") / "classes.csv")
    assert balance.groupby("label")["images"].sum().to_dict() == {"bright": 30, "odd": 18, "red": 10}


def test_an_image_of_no_class_is_kept_where_images_may_have_several(tabled, preprocess):
    paths = tabled(label=lambda t: ["odd" * (int(p[-5]) % 2) for p in t["path"]])
    preprocess(paths, task="multilabel")
    assert manifest(paths).loc["red/004.png", "label"] == ""
    assert reasons(paths) == {}


def number(table):
    return [f"{int(path[-5]) / 4}" for path in table["path"]]


def test_a_label_may_be_a_number(tabled, preprocess):
    paths = tabled(label=number)
    record = preprocess(paths, task="regression")
    assert task_and_label(paths, "red/007.png") == ({"regression"}, "1.75")
    assert (record.metrics["target_min"], record.metrics["target_max"]) == (0.0, 2.25)
    assert "classes" not in record.metrics
    balance = pd.read_csv(paths.plots("preprocess") / "classes.csv")
    assert balance["images"].sum() == 30
    assert list(balance["label"]) == sorted(balance["label"])


@pytest.mark.parametrize(("images", "told"), [(2, "all training images have the same number"), (1, "same number")])
def test_too_few_numbers_are_refused(tmp_path, preprocess, noise, images, told):
    paths = Paths(tmp_path)
    paths.raw.mkdir(parents=True)
    for n in range(images):
        noise(seed=n).save(paths.raw / f"{n}.png")
    pd.DataFrame({"path": [f"{n}.png" for n in range(images)], "target": range(images)}).to_csv(
        paths.raw / "labels.csv", index=False
    )
    with pytest.raises(DataError, match=told):
        preprocess(paths, task="regression")


@pytest.mark.parametrize(("task", "one", "other"), [("multilabel", "red", ""), ("regression", "0.5", "0.7")])
def test_copies_with_other_labels_are_held_out_whatever_a_label_is(tabled, preprocess, task, one, other):
    with Image.open(tabled().raw / "red/000.png") as image:
        image.save(tabled().raw / "red/copy.png")
    paths = tabled(label=lambda t: [one if path[0] == "b" or path == "red/000.png" else other for path in t["path"]])
    preprocess(paths, task=task)
    assert set(reasons(paths)) == {"red/000.png", "red/copy.png"}
    assert all(reason.startswith("same pixels under two labels") for reason in reasons(paths).values())


@pytest.mark.parametrize(
    ("task", "label", "told"),
    [
        ("multilabel", "red", "no class tells the training images apart"),
        ("multilabel", "", "no class tells the training images apart"),
        ("regression", "1.5", "all training images have the same number"),
    ],
)
def test_labels_that_teach_nothing_are_refused(tabled, preprocess, task, label, told):
    with pytest.raises(DataError, match=told):
        preprocess(tabled(label=lambda t: [label] * len(t)), task=task)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_folders_of_classes_stop_the_run_where_they_cannot_be_the_labels(fresh, preprocess, task):
    with pytest.raises(DataError, match=r"labels\.csv"):
        preprocess(fresh, task=task)
    assert not fresh.manifest.exists()


def test_classes_that_look_like_several_are_named(tabled, preprocess, capsys):
    preprocess(tabled(label=lambda t: ["a|b" if int(p[-5]) % 2 else "a" for p in t["path"]]))
    assert "one class: `a|b`; if an image has several classes, set `head.task: multilabel`" in capsys.readouterr().err
    preprocess(tabled(label=several), task="multilabel")
    assert "one class" not in capsys.readouterr().err


def test_numbers_that_are_taken_for_classes_are_refused_with_the_way_out(tabled, preprocess):
    with pytest.raises(DataError, match=r"no image is left for the split[\s\S]*`head.task: regression`"):
        preprocess(tabled(label=lambda t: [f"{n / 7}" for n in range(len(t))]))


def test_a_group_of_most_images_is_named_with_its_split(tabled, preprocess, capsys):
    def mostly_one(table):
        return ["giant" if n % 10 < 7 else None for n in range(len(table))]

    paths = tabled(group=mostly_one)
    preprocess(paths)
    assert "all images: giant (70% of all images, in train); a metric" in capsys.readouterr().err
    rows = manifest(paths)
    assert set(rows.loc[rows["group"] == "giant", "split"]) == {"train"}


def test_many_copies_of_one_picture_are_named_as_a_group(fresh, preprocess, noise, capsys):
    for number in range(5):
        noise(seed=7, centre=(200, 50, 40)).save(fresh.raw / "red" / f"copy{number}.bmp")
    preprocess(fresh)
    assert "copies of red/copy0.bmp (33% of class red, in " in capsys.readouterr().err


def test_groups_of_the_usual_size_are_not_named(tabled, preprocess, capsys):
    preprocess(tabled(group=lambda table: [f"g{n % 10}" for n in range(len(table))]))
    assert "a metric on images of one group" not in capsys.readouterr().err


@pytest.mark.parametrize("evidence", ["dvc.lock", "pins"])
def test_no_image_of_a_project_from_before_classes_were_listed_moves(fresh, preprocess, noise, evidence):
    """Its classes have ten images, which were split by their hash."""
    keys = {path: f"pixels:{look(fresh.raw / path).pixels}" for path in map(str, list_files(fresh.raw))}
    at = {path: place(key, 0) for path, key in keys.items()}
    before = {path: "test" if x < 0.25 else "val" if x < 0.5 else "train" for path, x in at.items()}
    if evidence == "pins":
        path = next(path for path, split in before.items() if split == "train")
        before[path] = "test"
        write_pins(fresh, [(0, keys[path], "test")])
    else:
        (fresh.root / "dvc.lock").write_text("stages:\n  preprocess:\n    cmd: python\n", encoding="utf-8")
    preprocess(fresh)
    assert manifest(fresh)["split"].to_dict() == before
    noise(seed=99, centre=(200, 50, 40)).save(fresh.raw / "red" / "new.png")
    preprocess(fresh)
    assert before.items() <= manifest(fresh)["split"].to_dict().items()


def test_a_new_project_has_its_shares_of_each_class(fresh, preprocess):
    preprocess(fresh)
    table = pd.crosstab(manifest(fresh)["label"], manifest(fresh)["split"])
    assert ((table[["val", "test"]] == 2) | (table[["val", "test"]] == 3)).all(axis=None)


def write_pins(paths, rows):
    pd.DataFrame(rows, columns=["seed", "key", "split"]).to_csv(paths.pins, index=False)


@pytest.fixture
def tiles(tmp_path):
    """Tiles in MVTec's layout, with masks of most defects."""
    paths = Paths(tmp_path)
    draw_tiles(paths.raw, good=24, test_good=4, defects=4)
    return paths


def test_masks_are_a_column_and_no_images(tiles, preprocess):
    metrics = preprocess(tiles, task="anomaly").metrics
    table = manifest(tiles)
    assert set(table["label"]) == {"good", "hole", "scratch"}
    assert table.loc["test/scratch/000.png", "mask"] == "ground_truth/scratch/000_mask.png"
    assert table["mask"].notna().sum() == metrics["masks"] == 6
    assert set(table.loc[table["split"] != "test", "label"]) == {"good"}
    assert set(table["split"]) == {"train", "val", "test"}


def test_a_mask_without_an_image_and_one_of_another_size_are_rejected(tiles, preprocess):
    (tiles.raw / "test/scratch/000.png").unlink()
    Image.new("L", (9, 40), 255).save(tiles.raw / "ground_truth/scratch/001_mask.png")
    preprocess(tiles, task="anomaly")
    assert reasons(tiles) == {
        "ground_truth/scratch/000_mask.png": "a mask without an image",
        "ground_truth/scratch/001_mask.png": "mask: 9 x 40 px, but test/scratch/001.png has 48 x 48",
    }
    assert pd.isna(manifest(tiles).loc["test/scratch/001.png", "mask"])


def test_a_table_names_masks(tmp_path, preprocess):
    paths = Paths(tmp_path)
    rows = ["path,label,mask"]
    for n in range(40):
        kind = "hole" if n % 5 == 0 else "good"
        mask = draw_tile(paths.raw / f"images/{n}.png", n, kind)
        mask.save(paths.raw / f"images/{n}-mask.png")
        rows.append(f"images/{n}.png,{kind},images/{n}-mask.png")
    (paths.raw / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    preprocess(paths, task="anomaly")
    assert len(manifest(paths)) == 40
    assert manifest(paths)["mask"].notna().all()


def test_anomaly_detection_learns_from_good_images_alone(tmp_path, preprocess):
    paths = Paths(tmp_path)
    for n in range(30):
        draw_tile(paths.raw / f"good/{n}.png", n)
    assert preprocess(paths, task="anomaly").metrics["classes"] == 1


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("normal", 30, r"no image is labelled good[\s\S]*the labels hole, normal[\s\S]*name the folder"),
        ("good", 12, r"too few good images[\s\S]*at least 20 outside the test"),
    ],
)
def test_without_enough_good_images_the_stage_says_what_is_there(tmp_path, preprocess, name, count, expected):
    paths = Paths(tmp_path)
    for n in range(count):
        draw_tile(paths.raw / name / f"{n}.png", n)
    draw_tile(paths.raw / "hole/1.png", 1, "hole")
    with pytest.raises(DataError, match=expected):
        preprocess(paths, task="anomaly")


def test_masks_of_a_project_that_classifies_are_refused(tiles, preprocess):
    with pytest.raises(DataError, match=r"head\.task: anomaly"):
        preprocess(tiles)


def test_shards_give_the_manifest_of_the_same_images_as_files(tmp_path, preprocess):
    paths = Paths(tmp_path)
    draw_tiles(paths.raw, good=30, test_good=4, defects=4)
    (paths.raw / "train/good/empty.png").touch()
    (paths.raw / "train/good/notes.txt").write_text("notes")

    def outputs():
        preprocess(paths, task="anomaly")
        return [(paths.manifest / name).read_bytes() for name in ("manifest.parquet", "rejected.parquet")]

    before, names = outputs(), list_files(paths.raw)
    shutil.rmtree(paths.cache)
    shard_files(paths.raw, names[1::2])
    shard_files(paths.raw, names[2::2], "shard-000001")
    assert list_files(paths.raw) == names
    assert outputs() == before

    (paths.raw / "shard-000002.tar").write_bytes(bytes(1024))
    with pytest.raises(DataError, match=r"shard-000002\.tar is half of a shard"):
        preprocess(paths, task="anomaly")
