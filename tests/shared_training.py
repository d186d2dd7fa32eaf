"""A training that several processes share, for tests: `python -m shared_training FOLDER SETTINGS` is one of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

N, SIDE = 26, 8


def images() -> Any:
    """Dark and light images in turn, of different weights."""
    from graft.tasks.finetune.batches import Images

    y_N = np.arange(N) % 2
    pixels = (60 + 60 * y_N[:, None, None, None] + np.random.default_rng(0).integers(0, 80, (N, SIDE, SIDE, 3))).astype(
        np.uint8
    )
    return Images(lambda i, epoch: pixels[i], y_N, np.linspace(0.5, 1.5, N))


def learn(folder: Path, name: str, stop: int | None = None, **settings: Any) -> dict[str, Any]:
    """The loss of every step, the course's rows, and the final weights' norms, of this process' training."""
    from dataclasses import replace

    import torch
    from timm.layers import DropPath
    from torch import nn

    from graft.tasks.common.images.transform import EvalTransform
    from graft.tasks.finetune.auto_rules import plan
    from graft.tasks.finetune.inputs import normalised
    from graft.tasks.finetune.loss import Goal
    from graft.tasks.finetune.params import FinetuneParams
    from graft.tasks.finetune.trainer import Trainer

    transform = EvalTransform(SIDE, SIDE, 1.0, "center", "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.drop = (
                nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)),
                DropPath(0.3),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.drop(self.body(x))

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.1), Branch(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2),
    )  # fmt: skip
    params = FinetuneParams(**{"epochs": 3, "batch_size": 7, "learning_rate": 1e-2, "precision": "f32", **settings})
    planned = replace(plan(params, N), stop=stop)
    last = (np.zeros((2, 6), np.float32), np.zeros(2, np.float32))
    goal = Goal("classification", params.label_smoothing)
    trainer = Trainer(network, last, normalised(transform), torch.zeros(2, 3, SIDE, SIDE), params, planned, goal)
    losses, step = [], trainer._step

    def noted(*args: Any) -> torch.Tensor:
        value = step(*args)
        losses.append(trainer._team.sum(value))
        return value

    trainer._step = noted  # type: ignore[method-assign]
    course = trainer.run(images(), images(), folder / f"{name}.safetensors", None)
    return {"losses": losses, "rows": course.rows, "weights": [
        float(value.float().norm()) for value in trainer.network.state_dict().values()
    ]}  # fmt: skip


def learn_together(folder: Path, every: dict[str, dict[str, Any]], processes: int = 2) -> dict[str, dict[str, Any]]:
    """`learn` with each of these settings, in so many new processes at once; what the first of them has found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, "-m", "shared_training", str(folder), json.dumps(every)]
    places = os.pathsep.join(path for path in sys.path if path)
    started = [
        subprocess.Popen(command, env={
            **os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
            "OMP_NUM_THREADS": "1", "PYTHONPATH": places,
        })
        for rank in range(processes)
    ]  # fmt: skip
    assert [process.wait(300) for process in started] == [0] * processes
    return dict(json.loads((folder / "found.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    found = {name: learn(Path(sys.argv[1]), name, **settings) for name, settings in json.loads(sys.argv[2]).items()}
    if os.environ["RANK"] == "0":
        (Path(sys.argv[1]) / "found.json").write_text(json.dumps(found), encoding="utf-8")
