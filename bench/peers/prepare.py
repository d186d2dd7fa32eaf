"""Writes the network of a project's `features` section in the forms that peers read, so that all have the same weights.

Run in a project; gives `weights.safetensors` (timm's names), `transform.json` (timm's data configuration) and, where
the package `onnx` can be found, `model.onnx`.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import timm
import torch
import yaml
from safetensors.torch import save_file

from graft.tasks.common.backbones import network
from graft.tasks.common.backbones.weights import find_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--onnx", type=Path, help="the site-packages folder of an environment that has onnx")
    options = parser.parse_args()
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["features"]
    source = find_weights(params["backbone"], params["weights"], Path.cwd() / "data" / "weights")
    model = network.create(params["backbone"], source)
    config = timm.data.resolve_model_data_config(model)

    options.out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.clone() for name, value in model.state_dict().items()}, options.out / "weights.safetensors")
    (options.out / "transform.json").write_text(json.dumps(config), encoding="utf-8")
    if options.onnx:
        sys.path.append(str(options.onnx))  # last: only what this environment lacks comes from there
        export(model, config["input_size"], options.out / "model.onnx")


def export(model: torch.nn.Module, size: tuple[int, int, int], target: Path) -> None:
    """Float32 (B, C, H, W) in, float32 (B, D) out; B is free."""
    free = {"pixels": {0: "B"}, "features": {0: "B"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter by tracing is deprecated, and needs one package less
        torch.onnx.export(
            model,
            (torch.zeros(2, *size),),
            str(target),
            dynamo=False,
            input_names=["pixels"],
            output_names=["features"],
            dynamic_axes=free,
        )


if __name__ == "__main__":
    main()
