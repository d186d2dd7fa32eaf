"""The page in a browser: dropped pictures, files that are none, the key, and widths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, browser
from projects import Project, wait_for
from server_process import Served, serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

ANSWERED = "[...document.querySelectorAll('.card')].map(c => c.querySelector('.label').textContent)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def fresh(page: Page, served: Served, width: int = 1280) -> None:
    page.resize(width)
    page.open(f"http://127.0.0.1:{served.port}/")


def answered(page: Page) -> list[str]:
    return wait_for(lambda: (told := page.run(ANSWERED)) and "Looking …" not in told and told, seconds=30)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_dropped_picture_is_answered_and_nothing_runs_over(
    page: Page, served: Served, picture: bytes, width: int
) -> None:
    fresh(page, served, width)
    page.drop("a.png", "image/png", picture)
    expected = served.ask("POST", "/predict", picture).document

    assert answered(page) == [expected["label"]]
    assert page.run("document.querySelectorAll('.bars tr').length") == 3
    assert page.run("document.querySelector('.chosen .number').textContent") == f"{100 * expected['score']:.1f} %"
    assert page.run("document.documentElement.scrollWidth") == width
    assert expected["label"] in page.run("document.getElementById('status').textContent")
    assert page.run("document.activeElement.textContent") == expected["label"]


def test_a_file_that_is_no_picture_is_refused_in_plain_words(page: Page, served: Served) -> None:
    fresh(page, served)
    page.drop("a.txt", "text/plain", b"some text")

    assert answered(page) == ["No answer"]
    assert (
        page.run("document.querySelector('.card .error').textContent") == "This file is not a picture that can be read."
    )


def test_chosen_files_are_answered_latest_first(page: Page, served: Served, finished: Project) -> None:
    fresh(page, served)
    names = ["red/000.png", "blue/001.png"]
    page.choose("#files", *(finished.root / "data" / "raw" / name for name in names))
    wait_for(lambda: len(answered(page)) == 2, seconds=30)

    assert page.run("[...document.querySelectorAll('.card .name')].map(n => n.textContent)") == ["001.png", "000.png"]


def test_what_decided_the_answer_is_shown_on_demand(page: Page, served: Served, picture: bytes) -> None:
    fresh(page, served)
    page.drop("a.png", "image/png", picture)
    answered(page)
    page.run("document.querySelector('.explain').click()")
    wait_for(lambda: "decided" in page.run("document.querySelector('.card img').alt"), seconds=60)


def test_every_control_can_be_reached_and_has_a_name(page: Page, served: Served) -> None:
    fresh(page, served)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "link", "heading", "Video"}
    named = [(node["role"]["value"], node["name"]["value"]) for node in nodes if node["role"]["value"] in roles]

    assert ("button", "Use the camera") in named
    assert ("button", "Choose files") in named or ("button", "Choose files: No file chosen") in named
    assert all(name for _, name in named)


def test_nothing_is_loaded_from_elsewhere(page: Page, served: Served) -> None:
    fresh(page, served)
    own = (f"http://127.0.0.1:{served.port}/", f"blob:http://127.0.0.1:{served.port}/", "data:")

    assert [url for url in page.loaded[-4:] if not url.startswith(own)] == []


def test_the_key_is_asked_for_and_used(page: Page, package: Path, tmp_path: Path, picture: bytes) -> None:
    key = "a-key-of-some-length"
    with serving(tmp_path, "--model", str(package), GRAFT_SERVE_KEY=key) as guarded:
        fresh(page, guarded)
        assert page.run("document.getElementById('key-form').hidden") is False
        page.drop("a.png", "image/png", picture)
        assert answered(page) == ["No answer"]
        page.run(f"document.getElementById('key').value = '{key}'")
        page.run("document.querySelector('#key-form button').click()")
        wait_for(lambda: len(page.run(ANSWERED)) == 2, seconds=30)

        assert answered(page)[0] in ("red", "green", "blue")
        assert page.run("document.getElementById('key-form').hidden") is True


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('{label: "a", score: 0.9}', "a"),
        ('{labels: ["a", "b"]}', "a, b"),
        ("{labels: []}", "None of the classes"),
        ("{value: 2.5}", "2.5"),
        ("{anomalous: true, score: 2.5}", "Anomalous"),
        ("{anomalous: false, score: 0.5}", "Good"),
        ("{value: 2.5, low: 1, high: 3}", "2.5 (between 1 and 3)"),
    ],
)
def test_answers_of_each_task_are_told(page: Page, served: Served, answer: str, told: str) -> None:
    fresh(page, served)

    assert page.run(f"title({answer})") == told


@pytest.mark.parametrize("width", [390, 1280])
def test_an_anomaly_is_shown_under_its_heat_map_which_can_be_hidden(
    page: Page, anomalies: Path, tmp_path: Path, width: int
) -> None:
    with serving(tmp_path, "--model", str(anomalies / "package")) as detector:
        fresh(page, detector, width)
        wait_for(lambda: "graft" in page.run("document.getElementById('model').textContent"), seconds=30)
        page.drop("a.png", "image/png", (anomalies / "defect" / "00.png").read_bytes())

        assert answered(page) == ["Anomalous"]
        assert page.run("document.querySelector('.card img').src").startswith("data:image/png")
        assert "unlike the good pictures" in page.run("document.querySelector('.card img').alt")
        assert page.run("document.querySelector('.scores').textContent").startswith("Score ")
        assert page.run("document.documentElement.scrollWidth") == width
        page.run("document.querySelector('.explain').click()")
        assert page.run("document.querySelector('.card img').src").startswith("blob:")


def test_doubts_are_told_plainly(page: Page, served: Served, picture: bytes) -> None:
    fresh(page, served)
    page.drop("a.png", "image/png", picture)
    answered(page)
    doubtful = '{label: "a", score: 0.6, abstain: true, typicality: 0.01, probabilities: {a: 0.6, b: 0.4}}'
    page.run(f"fill(document.querySelector('.card'), new File([], 'a.png'), {doubtful})")
    shown = page.run("[...document.querySelectorAll('.notice:not([hidden])')].map(n => n.textContent)")

    assert page.run("document.querySelector('.label').textContent") == "Not sure"
    assert [text.split(".")[0] for text in shown] == [
        "Not sure",
        "This picture is unlike anything that the model has learned from",
    ]
