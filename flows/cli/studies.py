"""The commands that compare: `graft rank`, `graft compare` and `graft drift`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.core.paths import find_root

from .options import HERE, LOOK, SETTINGS, TRAIN, AsJson, Project, examples
from .output import print_json

app = typer.Typer(**SETTINGS)


@app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        {
            "graft rank": "all whose weights are here",
            "graft rank ResNet50 MobileNetV2": "these two, with a download if need be",
            "graft rank --metric balanced_accuracy": "by another metric",
        }
    ),
)
def rank(
    backbones: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BACKBONE]...",
            help="Names from Keras or timm; the default is every backbone whose weights are on this machine.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="The weights of the named backbones: auto, package, hub, keras or random.", show_default=False
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="A metric of the task; the default is that of gate.metric.", show_default=False),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="The difference that would not matter, in units of the metric; the default is gate.margin.",
            show_default=False,
        ),
    ] = None,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Compare backbones on your images by a validation metric, speed and size.

    Nothing is changed except the list of images in data/manifest.
    """
    from ..backbones.table import timm_name_of

    root = find_root(project)
    for name in backbones or []:
        timm_name_of(name)  # a misspelt one is refused before anything else is loaded
    from ..studies.rank import rank_backbones
    from ..studies.rank_text import print_ranking

    found = rank_backbones(root, backbones or [], weights, metric, margin)
    print_json(found) if as_json else print_ranking(found)


@app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        {
            "graft compare": "all methods",
            "graft compare --methods head,last_stage --shares 0.1,1": "two of them",
            "graft compare --budget-minutes 30": "what fits into half an hour",
        }
    ),
)
def compare(
    methods: Annotated[
        str, typer.Option(help="The methods to compare: any of head, last_stage, all, scratch.")
    ] = "head,last_stage,all,scratch",
    shares: Annotated[str, typer.Option(help="The shares of the training images to train on.")] = "0.1,0.3,1",
    seeds: Annotated[int, typer.Option(help="How often each training is repeated, with another seed.")] = 3,
    budget_minutes: Annotated[
        float | None, typer.Option(help="Leave out trainings that would take longer.", show_default=False)
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Also write the result to this Markdown file.", show_default=False),
    ] = None,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Compare a frozen backbone, fine-tuning and training from scratch on your images."""
    from ..studies.compare import compare_methods
    from ..studies.compare_text import print_comparison

    numbers = _numbers("--shares", shares)
    found = compare_methods(find_root(project), _words(methods), numbers, seeds, budget_minutes, page)
    print_json(found) if as_json else print_comparison(found)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError:
        raise ParamsError(
            f"{option} cannot be read", got=text, allowed="numbers, separated by commas", todo="e.g. 0.1,0.3,1"
        ) from None


@app.command(
    rich_help_panel=LOOK,
    epilog=examples(
        {
            "graft drift": "the newest images of the project",
            "graft drift inbox": "a folder",
            "graft drift inbox --model 3": "against version 3",
        }
    ),
)
def drift(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="A folder of images, or a .csv or .parquet file with their paths; the default is the project's "
            "images that are newer than the model.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="An alias or a version of the registered model.")] = "champion",
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Compare new images with those that the model was trained on.

    The exit code is 0 if they are alike and 3 if they have drifted.
    """
    from ..studies.drift import check_drift
    from ..studies.drift_text import print_drift

    report = check_drift(find_root(project), source, model)
    print_json(report.document) if as_json else print_drift(report.document)
    if report.verdict == "drift":
        raise SystemExit(3)
