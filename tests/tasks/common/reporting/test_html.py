"""Pages from templates."""

import base64
import re
from functools import partial

import jinja2
import pytest
from PIL import Image

from graft.tasks.common.reporting.html import inlined, render


@pytest.fixture
def template(text_file):
    """template(text) -> a file with that template."""
    return partial(text_file, "page.html")


def test_values_are_escaped(template):
    assert render(template("<p>{{ name }}</p>"), name='<b>"&') == "<p>&lt;b&gt;&#34;&amp;</p>"


def test_a_value_that_is_missing_is_an_error(template):
    with pytest.raises(jinja2.UndefinedError, match="name"):
        render(template("{{ name }}"))


def test_a_page_extends_the_base_and_fits_a_phone(template):
    content = render(template('{% extends "base.html" %}{% block content %}<p>x</p>{% endblock %}'), title="A & B")
    assert content.startswith("<!doctype html>")
    assert "<title>A &amp; B</title>" in content
    assert 'name="viewport"' in content
    assert "max-width: 100%" in content


def test_numbers_have_filters(template):
    text = "{{ x|percent }} {{ x|percent(0) }} {{ x|decimals }} {{ n|thousands }}"
    assert render(template(text), x=0.1234, n=12345) == "12.3% 12% 0.123 12,345"


def test_names_in_backticks_are_set_as_code(template):
    text = '{% from "macros.html" import with_code %}{{ with_code(reason) }}'
    assert render(template(text), reason="fewer than `a.b`, <5").strip() == "fewer than <code>a.b</code>, &lt;5"


def test_plots_are_inlined_whole(tmp_path):
    Image.new("RGB", (3, 2), "red").save(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("no plot", encoding="utf-8")
    ((name, uri),) = inlined(tmp_path).items()
    assert name == "a.png"
    kind, content = re.fullmatch("data:([a-z/]+);base64,(.*)", uri).groups()
    assert kind == "image/png"
    assert base64.b64decode(content) == (tmp_path / "a.png").read_bytes()
