"""The site builds without a warning, and a reader's browser fetches nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FETCHES = re.compile(
    r"""<(?:script|link|img|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|href|srcset|data)=["']?(?:https?:)?//[^>]*>"""
)
"""A tag for which a browser asks another host; an ordinary link is none."""
IMPORTS = re.compile(r"""@import\s[^;]*//|url\(\s*["']?(?:https?:)?//""")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("material") is None,
    reason="mkdocs-material is not installed: pip install --constraint constraints.txt '.[docs]'",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]

    assert [page for page in pages if not (site / page.with_suffix(".html")).exists()] == []
    assert [file.name for file in site.rglob("*.py")] == []


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))

    assert len(pages) > 30
    assert {tag for page in pages for tag in FETCHES.findall(page.read_text(encoding="utf-8"))} == set()
    assert {style.name for style in site.rglob("*.css") if IMPORTS.search(style.read_text(encoding="utf-8"))} == set()


def test_a_tag_that_fetches_is_told_from_a_link() -> None:
    assert FETCHES.search('<script defer src="https://cdn.example.org/a.js"></script>')
    assert FETCHES.search('<link rel="stylesheet" href="//fonts.example.org/css">')
    assert not FETCHES.search('<a href="https://example.org">')
    assert not FETCHES.search('<img src="../images/overview.svg">')
