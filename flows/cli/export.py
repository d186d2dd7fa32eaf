"""The command that takes a model elsewhere: `graft export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import HERE, SETTINGS, USE, AsJson, Project, examples
from .output import show

app = typer.Typer(**SETTINGS)


class Format(StrEnum):
    onnx = "onnx"
    openvino = "openvino"


class Precision(StrEnum):
    f32 = "f32"
    int8 = "int8"


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        {
            "graft export --to onnx --output model.onnx": "the champion",
            "graft export --model 3 --to openvino --output model.xml": "version 3",
            "graft export --to openvino --output model.xml --precision int8": "in 8 bits",
            "graft export --model ./package --to onnx --output m.onnx --images photos": "a folder, without its project",
        }
    ),
)
def export(
    to: Annotated[Format, typer.Option("--to", help="The format of the file.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(help="The file to write: .onnx, or .xml, which has its weights in a .bin beside it."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="The folder of a package; `package` for models/package; an alias or a version of the registered "
            "model. The default is the champion, or models/package if there is none.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="A picture, or a folder of them, to compare the file with the model on; the default is the project's "
            "test images. May be given several times.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="int8: quantised on training images, for OpenVINO only; needs the extra `int8`."),
    ] = Precision.f32,
    max_loss: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=100.0,
            help="With --precision int8: how many points of the metric the model may lose on the validation images.",
        ),
    ] = 1.0,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Write a model as one ONNX or OpenVINO file, from picture to probabilities.

    The file is written only if it predicts the same as the model for every picture of the comparison, in a process of
    its own. A README beside it has code for Python, JavaScript and C++. Needs the extra: pip install 'graft[onnx]'.
    """
    from ..runtime.locations import place_of
    from ..serving.export import export_model

    allowed = max_loss if precision is Precision.int8 else None
    done = export_model(place_of(project), model, to.value, output, images or [], allowed)
    show(done if as_json else {**done, "files": "\n".join(done["files"])}, as_json, "Exported")
