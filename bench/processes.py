"""Processes timed from outside, and the machine they ran on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
"""Everything a benchmark makes on its way; not in git."""

PEERS = ROOT / ".venv-bench"
"""The environment of bench/requirements.txt."""

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


class Failed(RuntimeError):
    """A process that was to be timed did not end well."""


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would point a pipeline to another's servers; its Python first in the PATH.

    CUDA devices are hidden: all contestants run on the same processor.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "GRAFT_", "PYTHONPATH"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    quiet = {
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "DO_NOT_TRACK": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {**kept, "PATH": path, **quiet, **more}


def timed(words: Sequence[str | Path], cwd: Path, **more: str) -> float:
    """Seconds from the start of a process to its end.

    Raises:
        Failed: it ended with another code than 0; with the last lines that it printed.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment(**more), capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise Failed(f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return seconds


def peer_python() -> Path | None:
    """The Python of the peers' environment, if `make bench` has made it."""
    python = PEERS / "bin" / "python"
    return python if python.is_file() else None


def machine() -> dict[str, Any]:
    """What the measurements depend on: processor, cores, its fast number formats, memory, system."""
    facts = _cpuinfo()
    return {
        "processor": facts.get("model name") or platform.processor(),
        "family_model_stepping": "/".join(facts.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in facts.get("flags", "").split()],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def _cpuinfo() -> dict[str, str]:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return {key.strip(): value.strip() for key, value in pairs}


def versions() -> dict[str, str]:
    """Of Graft's environment."""
    names = ("torch", "torchvision", "timm", "openvino", "pillow", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def compiler() -> bool:
    """Whether there is the C++ compiler that torch.compile needs."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
