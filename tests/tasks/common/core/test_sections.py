from functools import partial

import pytest
from pydantic import Field, ValidationError

from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.core.sections import Section, parse_section, read_params
from graft.tasks.finetune.params import FinetuneParams
from graft.tasks.head.params import HeadParams
from graft.tasks.preprocess.params import PreprocessParams


class Nested(Section):
    depth: int = 1


class Example(Section):
    rate: float = Field(0.5, gt=0, le=1)
    """How fast."""
    nested: Nested = Nested()


@pytest.fixture
def params_file(text_file):
    return partial(text_file, "params.yaml")


def test_off_is_a_word_and_not_false(params_file):
    assert read_params(params_file("finetune:\n  mode: off\n"))["finetune"]["mode"] == "off"


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ParamsError, match=r"params\.yaml does not exist"):
        read_params(tmp_path / "params.yaml")


def test_a_file_that_is_not_yaml_is_refused(params_file):
    with pytest.raises(ParamsError, match="is not YAML"):
        read_params(params_file("a: [1\n"))


def test_a_file_without_sections_is_refused(params_file):
    with pytest.raises(ParamsError, match="holds no sections"):
        read_params(params_file("- 1\n- 2\n"))


def test_an_empty_file_is_refused(params_file):
    with pytest.raises(ParamsError, match="holds no sections"):
        read_params(params_file(""))


@pytest.mark.parametrize("values", [None, {}])
def test_a_section_without_content_means_all_defaults(values):
    assert parse_section(Example, values, "example") == Example()


def test_a_value_from_the_file_replaces_the_default(params_file):
    values = read_params(params_file("example:\n  rate: 0.25\n"))["example"]
    assert parse_section(Example, values, "example").rate == 0.25


def refusal(section, values, name="example"):
    """The error for a section with these values."""
    with pytest.raises(ParamsError) as caught:
        parse_section(section, values, name)
    return caught.value


def test_an_unknown_key_is_answered_with_the_nearest_valid_one():
    error = refusal(Example, {"rat": 1})
    assert "unknown key `example.rat`" in error.what
    assert (error.todo, error.allowed) == ("did you mean `rate`?", "rate, nested")


def test_an_unknown_key_in_a_nested_section_is_answered_with_that_sections_keys():
    assert refusal(Example, {"nested": {"dept": 1}}).allowed == "depth"


def test_a_value_out_of_range_is_answered_with_the_range():
    error = refusal(Example, {"rate": 2})
    assert "`example.rate`" in error.what
    assert (error.got, error.allowed) == ("2", "> 0 and <= 1")


def test_a_word_that_is_no_choice_is_answered_with_the_choices():
    assert refusal(FinetuneParams, {"mode": "maybe"}, "finetune").allowed == "off | auto | on"


def test_all_faults_of_a_section_are_in_one_message():
    error = refusal(Example, {"rate": 2, "wrong": 1})
    assert "example.rate" in error.what
    assert "example.wrong" in error.what


def test_a_section_that_is_no_mapping_is_refused():
    with pytest.raises(ParamsError, match="example"):
        parse_section(Example, [1, 2], "example")


def test_a_parsed_section_cannot_be_changed():
    with pytest.raises(ValidationError):
        Example().rate = 0.1


def test_fractions_that_leave_nothing_to_train_on_are_refused():
    with pytest.raises(ParamsError, match="must be below 1, got 1"):
        parse_section(PreprocessParams, {"val_fraction": 0.5, "test_fraction": 0.5}, "preprocess")


def test_a_path_of_strengths_that_runs_backwards_is_refused():
    with pytest.raises(ParamsError, match="l2_min must not be above l2_max"):
        parse_section(HeadParams, {"l2_min": 2.0, "l2_max": 1.0}, "head")
