"""The eighteen networks of the Keras Applications table beside `keras.applications` itself, and their speed here.

    python -m bench.backbones                        all eighteen, about twenty minutes on two cores
    python -m bench.backbones --names ResNet50 ...   some of them

For each: weights from a seed in the layout of Keras' published files, read by Keras and by Graft, and saved again by
Keras in both of its own layouts and read by Graft; features and logits of four images compared. Then OpenVINO beside
torch, and the stages `features` and `head` on a few images. `--publish` writes bench/results/backbones.json,
docs/explanation/backbones.md and tests/tasks/common/backbones/recorded/; `--speeds` measures the published speeds
again, alone. `--record` writes the order of Keras' layers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from torch import nn

from graft.tasks.common.backbones import keras, network
from graft.tasks.common.backbones.catalogue import CATALOGUE, Entry, entry_of
from graft.tasks.common.backbones.graph import convert, read_graph
from graft.tasks.common.backbones.keras_layers import keras_network, modules_of
from graft.tasks.common.backbones.spec import Form, Output
from graft.tasks.common.backbones.weights import WeightsSource
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.engines.openvino import Engine

from . import report
from .peers import keras_recipe
from .processes import BUILD, ROOT, machine, peer_python, say, timed, versions

SEED = 1
SECONDS = 2.0
"""For which each engine runs, at least, three times."""

RECORDED = ROOT / "tests" / "tasks" / "common" / "backbones" / "recorded"
SMALL = (
    "Xception", "ResNet50", "ResNet50V2", "InceptionV3", "MobileNet", "MobileNetV2", "DenseNet121", "NASNetMobile",
)  # fmt: skip
"""The smallest of each family, whose outputs the tests compare with; VGG16 and InceptionResNetV2 take 0.2 to 0.5 GB."""

PLACES = 16
"""Every so many values of a recorded output."""

Shapes = list[tuple[str, list[tuple[int, ...]]]]


# ---------------------------------------------------------------- weights


def keras_shapes(name: str, timm_network: Any) -> Shapes:
    """What Keras' layers hold, in Keras' order, from timm's network and the known differences: ResNets have biases in
    convolutions that timm's have not, and the batch norms of the Inceptions have no gamma."""
    modules = modules_of(name, timm_network)
    found: Shapes = []
    for layer in keras_network(name).layers:
        module = timm_network.get_submodule(modules[layer])
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            found.append((layer, [tuple(module.weight.shape)] * (3 if name.startswith("Inception") else 4)))
            continue
        parts = [module] if isinstance(module, nn.Conv2d | nn.Linear) else list(module.children())
        shapes = [_kernel_shape(layer, part) for part in parts]
        if parts[-1].bias is not None or _biased(name, layer):
            shapes.append((parts[-1].weight.shape[0],))
        found.append((layer, shapes))
    return found


def _biased(name: str, layer: str) -> bool:
    """Whether Keras has a bias where timm has none."""
    if not name.startswith("ResNet"):
        return False
    return not name.endswith("V2") or layer == "conv1_conv" or layer.endswith(("_0_conv", "_3_conv"))


def _kernel_shape(layer: str, part: Any) -> tuple[int, ...]:
    """(O, I, h, w) of torch as Keras has it."""
    outputs, inputs, *window = part.weight.shape
    if layer in ("fc1", "fc2", "predictions"):
        return (int(np.prod([inputs, *window])), outputs)
    if part.weight.ndim == 2:
        return (1, 1, inputs, outputs)
    return (*window, outputs, 1) if part.groups > 1 else (*window, inputs, outputs)


def write_weights(entry: Entry, folder: Path) -> tuple[Path, Path]:
    """Files in the layout of Keras' published ones, with the top and without it."""
    with torch.device("meta"):
        shapes = keras_shapes(entry.name, timm.create_model(entry.timm, pretrained=False))
    layers = list(keras_recipe.weights(shapes, SEED))
    whole, notop = folder / "weights.h5", folder / "weights_notop.h5"
    keras_recipe.write(whole, layers)
    keras_recipe.write(notop, (layer for layer in layers if layer[0] not in keras.TOP))
    return whole, notop


# ---------------------------------------------------------------- comparison


def normalised(model: Any, pixels_BHWC: npt.NDArray[np.uint8]) -> torch.Tensor:
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) * 255 for key in ("mean", "std"))
    return (torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).float() - mean) / std


def outputs(entry: Entry, file: Path, output: Output, pixels_BHWC: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """What Graft's import of a file computes: `logits` and `features`, or `notop`, the mean of the last maps."""
    model: Any = keras.create(entry, file, output)
    x = normalised(model, pixels_BHWC)
    with torch.inference_mode():
        if output == "pooled":
            return {"notop": model.forward_features(x).mean((2, 3)).numpy()}
        logits = model(x).numpy()
        model.reset_classifier(0)
        return {"logits": logits, "features": model(x).numpy()}


def difference(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """|found - expected| / |expected|, of the worst image."""
    lengths = np.linalg.norm(expected, axis=1)
    return float((np.linalg.norm(found.astype(np.float64) - expected, axis=1) / lengths).max())


def compare(entry: Entry, folder: Path, python: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """The greatest differences from Keras by kind of output, over all layouts; and Keras' own outputs."""
    whole, notop = write_weights(entry, folder)
    words: list[str | Path] = [python, "-m", "bench.peers.keras_networks", "--name", entry.name, "--out", folder]
    timed([*words, "--whole", whole, "--notop", notop], ROOT)
    numbers = dict(np.load(folder / "numbers.npz"))
    pixels = keras_recipe.images(int(numbers["side"]))
    worst: dict[str, float] = {}
    tops: dict[str, Output] = {"weights.h5": "pre_logits", "keras3.weights.h5": "pre_logits", "model.h5": "pre_logits"}
    for name, output in {**tops, "weights_notop.h5": "pooled", "keras3_notop.weights.h5": "pooled"}.items():
        for kind, values in outputs(entry, folder / name, output, pixels).items():
            worst[kind] = max(worst.get(kind, 0.0), difference(values, numbers[kind]))
    return worst, numbers


def record(entry: Entry, numbers: dict[str, Any]) -> None:
    """Every so many values of Keras' outputs, for the tests."""
    RECORDED.mkdir(exist_ok=True)
    kept = {kind: numbers[kind][:, ::PLACES].astype(np.float32) for kind in ("features", "logits", "notop")}
    np.savez_compressed(RECORDED / f"{entry.name}.npz", side=numbers["side"], **kept)


# ---------------------------------------------------------------- engines and stages


def engines(entry: Entry, whole: Path, folder: Path) -> dict[str, float]:
    """Images a second of torch (eager, fp32) and OpenVINO (fp32), and the least cosine between their features."""
    source = WeightsSource("keras", whole.name, whole, "seed")
    model: Any = network.create(entry.timm, source, Form())
    spec = network.spec_of(model, entry.timm, source, Form())
    convert(model, spec, folder / "graph")
    engine = Engine(read_graph(folder / "graph").xml)
    pixels = keras_recipe.images(spec.transform.height).repeat(2, axis=0)
    x = normalised(model, pixels)
    with torch.inference_mode():
        expected = model(x).numpy().astype(np.float64)
        torch_rate = rate(lambda: len(model(x)))
    found = engine(pixels).astype(np.float64)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)

    def stream() -> int:
        return sum(len(batch) for _, batch in engine.stream(lambda i: pixels[i % len(pixels)], 32))

    return {
        "dimension": spec.dimension,
        "cosine": float(cosine.min()),
        "torch_images_per_second": torch_rate,
        "openvino_images_per_second": rate(stream),
    }


def rate(work: Callable[[], int]) -> float:
    """Images a second, the median of three rounds after one to warm up; `work` says how many it did."""
    work()
    found = []
    for _ in range(3):
        images, started = 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            images += work()
        found.append(images / (time.perf_counter() - started))
    return round(median(found), 2)


def through_stages(entry: Entry, whole: Path, folder: Path) -> float:
    """Accuracy on validation of the stages preprocess, features and head on 30 generated images of three colours."""
    from graft.tasks.features.params import FeaturesParams
    from graft.tasks.features.stage import run as features
    from graft.tasks.head.params import HeadParams
    from graft.tasks.head.stage import run as head
    from graft.tasks.preprocess.params import PreprocessParams
    from graft.tasks.preprocess.stage import run as preprocess

    paths = Paths(folder / "project")
    random = np.random.default_rng(0)
    for channel, label in enumerate(("red", "green", "blue")):
        (paths.raw / label).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 90, (32, 32, 3))
            pixels[..., channel] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(paths.raw / label / f"{number}.png")
    preprocess(PreprocessParams(val_fraction=0.3, test_fraction=0.2), paths, {})
    weights = paths.weights / whole.name
    weights.parent.mkdir(parents=True)
    weights.symlink_to(whole)
    features(FeaturesParams(backbone=entry.name, weights=f"keras:data/weights/{whole.name}"), paths)
    return float(head(HeadParams(folds=0, l2_max=1.0, strengths=7), paths).metrics["val_accuracy"])


# ---------------------------------------------------------------- the whole


def measure(entry: Entry, python: Path, *, recorded: bool) -> dict[str, Any]:
    say(f"{entry.name} ({entry.timm})")
    folder = BUILD / "backbones" / entry.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    differences, numbers = compare(entry, folder, python)
    if recorded and entry.name in SMALL:
        record(entry, numbers)
    found = {
        "name": entry.name,
        "differences": differences,
        **engines(entry, folder / "weights.h5", folder),
        "stages_accuracy": through_stages(entry, folder / "weights.h5", folder),
    }
    shutil.rmtree(folder)  # up to 3 GB each
    return found


def text(results: dict[str, Any]) -> str:
    """All that stands between the markers `backbones` of the page."""
    head = [
        "network", "features", "features' difference", "logits' difference", "no top",
        "OpenVINO to torch, least cosine", "torch, images/s", "OpenVINO, images/s", "faster by",
    ]  # fmt: skip
    rows = [
        [
            f"`{row['name']}`",
            f"{row['dimension']:,}",
            *(f"{row['differences'][kind]:.1e}" for kind in ("features", "logits", "notop")),
            f"{row['cosine']:.7f}",
            f"{row['torch_images_per_second']:.1f}",
            f"{row['openvino_images_per_second']:.1f}",
            f"{row['openvino_images_per_second'] / row['torch_images_per_second']:.1f} x",
        ]
        for row in results["networks"]
    ]
    return f"{report.machine_text(results['machine'])} {results['date']}.\n\n{report.table(head, rows)}"


def measure_again(row: dict[str, Any]) -> dict[str, Any]:
    """A published row with its engines measured again."""
    entry = entry_of(row["name"])
    assert entry is not None
    say(entry.name)
    folder = BUILD / "backbones" / entry.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    whole, _ = write_weights(entry, folder)
    found = {**row, **engines(entry, whole, folder)}
    shutil.rmtree(folder)
    return found


def publish(results: dict[str, Any]) -> str:
    """Writes the measurements: the page's two tables; returns the one that was measured."""
    target = report.Target(
        ROOT / "bench" / "results", ROOT / "docs" / "explanation" / "backbones.md", ROOT / "docs" / "images"
    )
    page = report.write_text("backbones", results, text(results), target)
    whole = report.replace_between(target.page.read_text(encoding="utf-8"), "catalogue", catalogue_text())
    target.page.write_text(whole, encoding="utf-8")
    return page


def catalogue_text() -> str:
    """What `graft models --markdown` prints where nothing has been measured."""
    from graft.flows.backbones import table, table_text
    from graft.flows.runtime.locations import Place

    with tempfile.TemporaryDirectory() as folder:
        place = Place(None, Path(folder) / "weights", Path(folder) / "cache")
        return table_text.markdown_groups(table.rows_of([], place))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=[entry.name for entry in CATALOGUE])
    parser.add_argument("--publish", action="store_true", help="write into bench/results, docs and tests")
    parser.add_argument("--speeds", action="store_true", help="only measure the published speeds again")
    parser.add_argument("--record", action="store_true", help="only write the order of Keras' layers")
    options = parser.parse_args()
    if options.speeds:
        results = json.loads((ROOT / "bench" / "results" / "backbones.json").read_text(encoding="utf-8"))
        results |= {"date": date.today().isoformat(), "machine": machine(), "versions": versions()}
        print(publish({**results, "networks": [measure_again(row) for row in results["networks"]]}))
        return
    python = peer_python()
    if python is None:
        raise SystemExit("the peers' environment is missing: `make bench-backbones` makes it")
    if options.record:
        target = Path(keras.__file__).with_name("keras_layers.txt")
        timed([python, "-m", "bench.peers.keras_networks", "--record", target], ROOT)
        return
    entries = [entry for entry in map(entry_of, options.names) if entry is not None]
    results = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "networks": [measure(entry, python, recorded=options.publish) for entry in entries],
    }
    if options.publish:
        print(publish(results))
    else:
        (BUILD / "backbones.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(text(results))


if __name__ == "__main__":
    main()
