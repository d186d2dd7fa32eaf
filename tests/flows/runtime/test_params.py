"""params.yaml as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from ruamel.yaml import YAML

from graft.flows.runtime.params import SECTIONS, GateMetric, json_schema, load_params
from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.data.task import METRICS

ROOT = Path(__file__).resolve().parents[3]


def write(folder: Path, text: str) -> Path:
    file = folder / "params.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_shipped_file_names_every_key_with_its_default() -> None:
    written = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))

    assert written == {name: model().model_dump(mode="json") for name, model in SECTIONS.items()}


def test_the_shipped_schema_is_the_models(tmp_path: Path) -> None:
    shipped = json.loads((ROOT / "docs" / "params.schema.json").read_text(encoding="utf-8"))

    assert shipped == json_schema(), "run: make docs"


def test_the_schema_takes_the_shipped_file_and_refuses_an_unknown_key() -> None:
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(params, json_schema())
    params["head"]["strenghts"] = 3

    with pytest.raises(jsonschema.ValidationError, match="strenghts"):
        jsonschema.validate(params, json_schema())


def test_an_unknown_section_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"unknown section `fintune`[\s\S]*did you mean `finetune`"):
        load_params(write(tmp_path, "fintune:\n  mode: off\n"))


def test_a_section_left_out_has_its_defaults(tmp_path: Path) -> None:
    assert load_params(write(tmp_path, "head:\n  strengths: 3\n")).evaluate == SECTIONS["evaluate"]()


def test_too_few_permutations_to_ever_say_drift_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "drift:\n  significance: 0.001\n  permutations: 1000\n")

    with pytest.raises(ParamsError, match=r"permutations must be at least 2 / significance, got 1000 and 0\.001"):
        load_params(file)


def test_more_permutations_than_memory_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"drift\.permutations[\s\S]*10,?_?000"):
        load_params(write(tmp_path, "drift:\n  permutations: 10001\n"))


def test_the_gate_takes_the_metrics_of_the_task_and_no_others(tmp_path: Path) -> None:
    assert load_params(write(tmp_path, "gate:\n  metric: f1_macro\n")).gate.metric == "f1_macro"
    file = write(tmp_path, "head:\n  task: regression\ngate:\n  metric: f1_macro\n")
    with pytest.raises(ParamsError, match=r"`gate.metric` is not a metric for this task[\s\S]*auto \| r2"):
        load_params(file)


def test_the_gate_knows_the_metrics_of_all_tasks() -> None:
    assert set(get_args(GateMetric)) == {"auto", *(metric.key for metrics in METRICS.values() for metric in metrics)}


def test_a_gain_that_the_rule_does_not_ask_for_is_refused(tmp_path: Path) -> None:
    assert load_params(write(tmp_path, "gate:\n  rule: better\n  min_gain: 0.01\n")).gate.min_gain == 0.01
    with pytest.raises(ParamsError, match="min_gain needs rule: better"):
        load_params(write(tmp_path, "gate:\n  min_gain: 0.01\n"))
    with pytest.raises(ParamsError, match=r"gate\.min_gain"):
        load_params(write(tmp_path, "gate:\n  rule: better\n  min_gain: -0.01\n"))


def test_off_and_on_are_words(tmp_path: Path) -> None:
    assert load_params(write(tmp_path, "finetune:\n  mode: off\n")).finetune.mode == "off"
    assert load_params(write(tmp_path, "finetune:\n  mode: on\n")).finetune.mode == "on"


def test_the_reference_has_a_row_for_every_key() -> None:
    page = (ROOT / "docs" / "reference" / "params.md").read_text(encoding="utf-8")
    keys = [f"{name}.{key}" for name, model in SECTIONS.items() for key in model.model_fields]

    assert [key for key in keys if f"| `{key}` |" not in page] == []
