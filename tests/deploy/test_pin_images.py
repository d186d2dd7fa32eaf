"""deploy/pin_images.py. There is no Docker where tests run: a script stands in for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.pin_images import main

DIGEST = f"sha256:{'0123456789abcdef' * 4}"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / ".env"
    file.write_text("PASSWORD=secret\nPYTHON_IMAGE=python:3.11-slim\nPOSTGRES_IMAGE=postgres:17@sha256:00\n", "utf-8")
    return file


def docker(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    (folder / "docker").write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_each_image_gets_the_digest_that_the_registry_has_now(
    tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(tmp_path, monkeypatch, f'test "$1" = pull || echo "library/x@{DIGEST}"')
    main(settings)
    lines = settings.read_text(encoding="utf-8").splitlines()
    assert lines == [
        "PASSWORD=secret",
        f"PYTHON_IMAGE=python:3.11-slim@{DIGEST}",
        f"POSTGRES_IMAGE=postgres:17@{DIGEST}",
    ]
    assert settings.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("echo no network >&2; exit 1", "no network"), ("true", "names no digest of python:3.11-slim")],
)
def test_nothing_is_changed_if_docker_fails_or_names_no_digest(
    tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch, answer: str, reason: str
) -> None:
    before = settings.read_text(encoding="utf-8")
    docker(tmp_path, monkeypatch, answer)
    with pytest.raises(SystemExit, match=reason):
        main(settings)
    assert settings.read_text(encoding="utf-8") == before


def test_without_docker_or_settings_the_error_says_so(
    tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="docker is not in the PATH"):
        main(settings)
    with pytest.raises(SystemExit, match="does not exist"):
        main(tmp_path / "gone")
