"""The label page in a browser: keys, undo, a server that is killed, several people, queues, widths."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, Page, browser
from projects import Project, wait_for

from graft.flows.labelling.current import read_labels_now
from graft.flows.labelling.pool import read_pool
from graft.tasks.preprocess.label_history import labels_of, read_answers, standings

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


class Labelling:
    """`graft label` as a process."""

    def __init__(self, project: Project, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "graft.flows.cli", "label", "--port", str(port)],
            cwd=project.root,
            env=project.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        found = re.search(r"http://127.0.0.1:(\d+)", told)
        assert found, told
        self.port = int(found[1])

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(120)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    folder = tmp_path / "browser"
    folder.mkdir()
    with browser(folder) as opened:
        yield opened


def start(page: Page, port: int, who: str) -> None:
    page.open(f"http://127.0.0.1:{port}/")
    page.run(f"localStorage.setItem('graft-who', {json.dumps(who)})")
    page.open(f"http://127.0.0.1:{port}/")
    wait_for(lambda: shown(page), seconds=60)


def shown(page: Page) -> str:
    """The image that is in the page, once its picture is there."""
    return page.run(
        "(() => { const i = document.getElementById('image');"
        "return !document.getElementById('work').hidden && i.complete && i.naturalWidth ? i.dataset.id : ''; })()"
    )


def press(page: Page, key: str, seconds: float = 60) -> None:
    """One key, until the page is ready for the next."""
    before = page.run("document.body.dataset.idle || ''")
    page.run(f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: {json.dumps(key)}, bubbles: true}}))")
    wait_for(lambda: page.run("document.body.dataset.idle || ''") != before, seconds=seconds)


def test_thirty_pictures_by_keyboard_with_undo_and_a_kill(page: Page, pooled: Project, colour_of: object) -> None:
    server = Labelling(pooled)
    name_of = dict(read_pool(pooled.root)[["image_id", "name"]].itertuples(index=False))
    classes = ["blue", "green", "red"]
    expected: dict[str, str] = {}

    def answer() -> None:
        image_id = wait_for(lambda: shown(page), seconds=60)
        label = colour_of(name_of[image_id])  # type: ignore[operator]
        press(page, str(classes.index(label) + 1))
        expected[image_id] = label

    start(page, server.port, "ann")
    for _ in range(15):
        answer()
    for _ in range(3):
        press(page, "ArrowLeft")
    for image_id in list(expected)[-3:]:
        del expected[image_id]
    port = server.port
    server.stop(signal.SIGKILL)
    page.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', bubbles: true}))")
    wait_for(lambda: not page.run("document.getElementById('trouble').hidden"), seconds=30)
    asked = shown(page)
    server = Labelling(pooled, port)
    wait_for(lambda: page.run("document.getElementById('trouble').hidden") and shown(page) != asked, seconds=90)
    expected[asked] = "blue"  # the answer that was given while there was no server
    while len(expected) < 30:
        answer()

    rows = read_answers(pooled.root / "data" / "labels.csv")
    assert labels_of(standings(rows)) == expected
    assert [row.label for row in rows].count("!undo") == 3
    assert server.stop() == 0
    assert len(read_pool(pooled.root)) == 6
    found = read_labels_now(pooled.root)
    assert {image_id: found.of(image_id) for image_id in expected} == expected


def test_two_people_at_once_and_both_widths(page: Page, pooled: Project, tmp_path: Path) -> None:
    server = Labelling(pooled)
    (tmp_path / "second").mkdir()
    with browser(tmp_path / "second") as other:
        for one, who, width in ((page, "ann", 390), (other, "bob", 1280)):
            one.resize(width)
            start(one, server.port, who)
            assert one.run("document.documentElement.scrollWidth") <= width
        seen = {"ann": [], "bob": []}  # type: dict[str, list[str]]
        for _ in range(6):
            for one, who in ((page, "ann"), (other, "bob")):
                seen[who].append(wait_for(lambda one=one: shown(one), seconds=60))  # type: ignore[misc]
                press(one, "2")
    assert not set(seen["ann"]) & set(seen["bob"])
    rows = pd.DataFrame(read_answers(pooled.root / "data" / "labels.csv"))
    assert rows.groupby("who")["image_id"].apply(list).to_dict() == seen
    assert all("127.0.0.1" in address or address.startswith(("blob:", "data:")) for address in page.loaded)
    server.stop()


def test_a_grid_confirms_many_at_once(page: Page, pooled: Project) -> None:
    server = Labelling(pooled)
    start(page, server.port, "ann")
    page.run("document.getElementById('mode').click()")
    count = wait_for(lambda: page.run("document.querySelectorAll('#tiles button').length"), seconds=60)
    page.run("document.querySelector('#tiles button').click()")
    guess = page.run("guess")
    page.run("document.getElementById('confirm').click()")
    wait_for(lambda: len(read_answers(pooled.root / "data" / "labels.csv")) == count - 1, seconds=60)
    assert {row.label for row in read_answers(pooled.root / "data" / "labels.csv")} == {guess}
    server.stop()
