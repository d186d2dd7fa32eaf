"""The usual PyTorch loop: DataLoader with timm's transform, a timm network, one batch after another.

Modes: `eager` (fp32), `bf16` (channels_last and autocast), `compiled` (the same, frozen and compiled by inductor).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from .measurements import BATCH, Measurements, arguments

Forward = Callable[[torch.Tensor], torch.Tensor]


def eager(model: torch.nn.Module) -> Forward:
    return torch.inference_mode()(model)


def bf16(model: torch.nn.Module) -> Forward:
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def forward(x_BCHW: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x_BCHW.contiguous(memory_format=torch.channels_last))

    return forward


def compiled(model: torch.nn.Module) -> Forward:
    import torch._inductor.config

    torch._inductor.config.freezing = True
    network = torch.compile(model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    @torch.no_grad()
    def forward(x_BCHW: torch.Tensor) -> torch.Tensor:
        count = len(x_BCHW)
        if count < BATCH:  # another size would be compiled again
            x_BCHW = torch.cat([x_BCHW, x_BCHW.new_zeros(BATCH - count, *x_BCHW.shape[1:])])
        with torch.autocast("cpu", torch.bfloat16):
            return network(x_BCHW.contiguous(memory_format=torch.channels_last))[:count]

    return forward


MODES = {"eager": eager, "bf16": bf16, "compiled": compiled}


def extract(loader: DataLoader[Any], forward: Forward) -> npt.NDArray[np.float32]:
    """Features (N, D)."""
    return torch.cat([forward(x_BCHW).float() for x_BCHW, _ in loader]).numpy()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--workers", type=int, nargs="+", default=[0])
    options = parser.parse_args()

    model = timm.create_model(options.backbone, pretrained=False, num_classes=0).eval()
    model.load_state_dict(load_file(options.model / "weights.safetensors"))
    config: dict[str, Any] = timm.data.resolve_model_data_config(model)
    data = ImageFolder(str(options.folder), timm.data.create_transform(**config, is_training=False))
    forward = MODES[options.mode](model)
    for _ in range(2):
        forward(torch.zeros(BATCH, *config["input_size"]))

    measured = Measurements(options.out, len(data))
    for workers in options.workers:
        loader = DataLoader(data, batch_size=BATCH, num_workers=workers)
        measured.loop(str(workers), partial(extract, loader, forward))
    files = [f"{data.classes[label]}/{path.rsplit('/', 1)[1]}" for path, label in data.samples]
    measured.write(files, torch=torch.__version__, timm=timm.__version__)


if __name__ == "__main__":
    main()
