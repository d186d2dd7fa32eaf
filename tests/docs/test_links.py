"""Every relative link in the documentation leads to a file, and every anchor to a heading."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "sample/README.md", "data/weights/README.md")
PAGES = [ROOT / name for name in OUTSIDE] + sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def links(page: Path) -> list[str]:
    """What the page links to, images included, but not what stands in code."""
    return LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def fault(page: Path, link: str) -> str | None:
    """What is wrong with a link, if anything; links to other sites are not followed."""
    path, _, anchor = unquote(link).partition("#")
    if re.match(r"[a-z]+:", path):
        return None
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return f"{link}: no such file"
    if anchor and anchor not in anchors(target):
        return f"{link}: no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_and_anchors_lead_somewhere(page: Path) -> None:
    assert [found for link in links(page) if (found := fault(page, link))] == []


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, and `code`\n[a](#a-title-and-code) [b](#b) [c](gone.md) [d](https://example.org)\n`[e](e.md)`\n",
        encoding="utf-8",
    )

    assert [fault(page, link) for link in links(page)] == [None, "#b: no such heading", "gone.md: no such file", None]


def test_pages_that_code_and_settings_name_exist() -> None:
    folders = [path for name in ("flows", "tasks", "bench", "deploy") for path in (ROOT / name).rglob("*.*")]
    files = [
        path for path in [*folders, *ROOT.glob("*.y*ml"), ROOT / "Makefile"] if path.suffix in (".py", ".yaml", "")
    ]
    named = {
        (path.relative_to(ROOT).as_posix(), page)
        for path in files
        for page in re.findall(r"\bdocs/[\w./-]+\.(?:md|json|py)\b", path.read_text(encoding="utf-8"))
    }

    assert {page for _, page in named} >= {"docs/params.schema.json", "docs/explanation/benchmarks.md"}
    assert {(path, page) for path, page in named if not (ROOT / page).exists()} == set()
