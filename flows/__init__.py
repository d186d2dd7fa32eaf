"""When Graft's stages run, and what is recorded of them."""

import importlib.util
import sys

import graft.tasks  # noqa: F401  first of all: it switches telemetry off before anything can phone home

if importlib.util.find_spec("mlflow") is None:  # dvc.yaml says `python`, and the first one in the PATH may be another
    sys.exit(
        f"\nerror: this Python does not have Graft's packages\n  got:     {sys.executable}\n"
        "  do:      activate the environment that has Graft (source .venv/bin/activate), or use `graft repro`\n"
    )
