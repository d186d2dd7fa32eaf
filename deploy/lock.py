"""Writes deploy/locks: what the images install, each file by its SHA-256. Run it with `make lock`.

uv resolves, within constraints.txt; kept are the files that CPython 3.11 can use on Linux, on x86_64 and aarch64. A
wheel is preferred: what has none is built during the installation, from a source that has a hash too.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LOCKS = HERE / "locks"

SERVERS = ["mlflow[auth]", "prefect", "asyncpg", "psycopg2-binary"]
RAY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]["ray"]
"""What Graft's extra `ray` adds."""

REMOTES = ("azure", "gs", "s3", "ssh", "webdav")
"""The remotes of DVC that DVC_REMOTE may name; each has a lock of what it adds."""

OF_TORCH = re.compile(r"torch|torchvision|triton|(nvidia|cuda)-.*")
"""What an index with CPU-only torch replaces."""

MACHINES = ("x86_64", "aarch64")
NOTE = "# {}; written by `make lock`.\n"


def main() -> None:
    LOCKS.mkdir(exist_ok=True)
    worker = resolved([str(ROOT / "pyproject.toml")], [ROOT / "constraints.txt"])
    write("torch", "torch and what it brings", (each for each in worker if OF_TORCH.fullmatch(each["name"])))
    write("worker", "the image `worker`", (each for each in worker if not OF_TORCH.fullmatch(each["name"])))
    write("servers", "the image `servers`", resolved_names(SERVERS, [ROOT / "constraints.txt"]))
    known = {each["name"] for each in worker}
    node = resolved_names(RAY, [ROOT / "constraints.txt", LOCKS / "worker.txt"])
    write("ray", "what the image `node` adds", (each for each in node if each["name"] not in known))
    for remote in REMOTES:
        more = resolved_names([f"dvc-{remote}"], [ROOT / "constraints.txt", LOCKS / "worker.txt"])
        write(f"dvc-{remote}", f"what dvc-{remote} adds", (each for each in more if each["name"] not in known))


def resolved_names(names: Iterable[str], within: list[Path]) -> list[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "names.in"
        file.write_text("\n".join(names), encoding="utf-8")
        return resolved([str(file)], within)


def resolved(sources: list[str], within: list[Path]) -> list[dict[str, Any]]:
    """The packages that uv chooses, as in PEP 751."""
    with TemporaryDirectory() as folder:
        target = Path(folder) / "pylock.toml"
        limits = [word for file in within for word in ("--constraint", str(file))]
        words = ["pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--format", "pylock.toml"]
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, *words, "--generate-hashes", *limits, "--output-file", target, *sources], check=True)
        packages: list[dict[str, Any]] = tomllib.loads(target.read_text(encoding="utf-8"))["packages"]
        return packages


def write(name: str, what: str, packages: Iterable[dict[str, Any]]) -> None:
    text = NOTE.format(what[0].upper() + what[1:]) + "".join(line for each in packages for line in lines(each))
    (LOCKS / f"{name}.txt").write_text(text, encoding="utf-8")


def lines(package: dict[str, Any]) -> Iterator[str]:
    """Of a requirements file; none for a package that Linux does not need."""
    needed = [machine for machine in MACHINES if is_needed(package, machine)]
    if not needed:
        return
    only = f" ; platform_machine == '{needed[0]}'" if len(needed) == 1 else ""
    yield f"{package['name']}=={package['version']}{only}"
    wheels = [file for file in package.get("wheels", []) if any(fits(file["url"], machine) for machine in needed)]
    for digest in sorted(file["hashes"]["sha256"] for file in wheels or [package["sdist"]]):
        yield f" \\\n    --hash=sha256:{digest}"
    yield "\n"


def is_needed(package: dict[str, Any], machine: str) -> bool:
    linux = {"platform_machine": machine, "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    python = {"python_version": "3.11", "python_full_version": "3.11.13", "implementation_name": "cpython"}
    marker = package.get("marker")
    return marker is None or Marker(marker).evaluate({**linux, **python, "platform_python_implementation": "CPython"})


def fits(url: str, machine: str) -> bool:
    """Whether CPython 3.11 on Linux with glibc installs a wheel."""
    *_, tags = parse_wheel_filename(url.rsplit("/", 1)[-1])
    return any(
        is_of_python(tag.interpreter, tag.abi)
        and (tag.platform == "any" or (tag.platform.startswith(("manylinux", "linux_")) and machine in tag.platform))
        for tag in tags
    )


def is_of_python(interpreter: str, abi: str) -> bool:
    version = re.fullmatch(r"cp3(\d+)", interpreter)
    if version is None or abi == "none":
        return interpreter in ("py3", "py311", "cp311") and abi == "none"
    return (int(version[1]) == 11 and abi == "cp311") or (int(version[1]) <= 11 and abi == "abi3")


if __name__ == "__main__":
    main()
