import math

import pytest
from ruamel.yaml import YAML

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.yaml_files import parse_yaml, read_mapping, read_yaml

SCALARS = [
    *("off", "on", "yes", "no", "y", "true", "True", "FALSE", "null", "~", "Null"),
    *("0", "1", "-1", "+7", "007", "010", "08", "1_000", "0x1F", "-0x1f", "0o17", "0b101", "12345678901234567890"),
    *("1.", "0.5", ".5", "-.5", "1e3", "1e-05", "1E+5", "1.5e-3", ".inf", "-.Inf", ".nan", "1_0.5"),
    *("1:30", "12:30:45", "=", "e5", ".", "-", "1.2.3", "0x", "__", "a b", "'1'", '"off"', "abc12", "+", "1e"),
]


@pytest.fixture
def file(tmp_path):
    def write(content, name="dvc.lock"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("text", [text for text in SCALARS if text not in ("-", "=")])
def test_a_value_is_what_dvc_reads(file, text):
    ours = read_yaml(file(f"key: {text}\n"))["key"]
    theirs = YAML(typ="safe").load(f"key: {text}\n")["key"]

    assert type(ours) is type(theirs)
    assert ours == theirs or (isinstance(ours, float) and math.isnan(ours) and math.isnan(theirs))


def test_anchors_and_merges_are_followed(file):
    text = "base: &base {cmd: a, deps: [x]}\nstage:\n  <<: *base\n  cmd: b\n"

    assert read_yaml(file(text)) == YAML(typ="safe").load(text)


def test_a_key_that_is_there_twice_is_refused_with_its_line(file):
    with pytest.raises(GraftError, match=r"line 3: the key `kind` is there twice"):
        read_yaml(file("head:\n  kind: linear\n  kind: mlp\n", "params.yaml"))


@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml", "raw.dvc"])
@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", ">>>>>>> 1234abc (a commit)"])
def test_merge_markers_are_called_a_conflict(file, name, marker):
    with pytest.raises(GraftError, match="has an unresolved merge conflict") as caught:
        read_yaml(file(f"stages:\n{marker}\n  head:\n", name))

    assert name in str(caught.value)
    assert str(caught.value.got).startswith("line 2: ")
    assert ("dvc repro" in str(caught.value)) == (name == "dvc.lock")


@pytest.mark.parametrize("content", [bytes(range(256)), b"\xff\xfe\x00", b"stages:\n\x00\x00"])
def test_a_binary_file_is_named_with_the_way_to_restore_it(file, content):
    with pytest.raises(GraftError, match=r"dvc\.lock is not[\s\S]*git checkout HEAD -- dvc\.lock"):
        read_yaml(file(content))


def test_a_syntax_error_is_named_with_its_line(file):
    with pytest.raises(GraftError, match=r"is not YAML\n  got:     line 3: "):
        read_yaml(file("stages:\n  - a: [1\n  head: }\n"))


@pytest.mark.parametrize(
    ("content", "got"), [("", "an empty file"), ("# nothing\n", "an empty file"), ("- 1\n", "list")]
)
def test_a_file_without_keys_is_refused(file, content, got):
    with pytest.raises(GraftError, match="no content that Graft can use") as caught:
        read_mapping(file(content))

    assert caught.value.got == got


def test_what_was_read_already_is_parsed_alike(tmp_path):
    assert parse_yaml(b"stages: {}\n", tmp_path / "dvc.lock") == {"stages": {}}
