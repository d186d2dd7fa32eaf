"""`keras.applications` on JAX: features and logits of four images with given weights, which it also saves itself.

With --record, the layers of all eighteen networks in Keras' own order, as tasks/common/backbones/keras_layers.txt.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np

from . import keras_recipe

MODULES = {
    "Xception": "xception", "VGG16": "vgg16", "VGG19": "vgg19", "ResNet50": "resnet", "ResNet101": "resnet",
    "ResNet152": "resnet", "ResNet50V2": "resnet_v2", "ResNet101V2": "resnet_v2", "ResNet152V2": "resnet_v2",
    "InceptionV3": "inception_v3", "InceptionResNetV2": "inception_resnet_v2", "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2", "DenseNet121": "densenet", "DenseNet169": "densenet", "DenseNet201": "densenet",
    "NASNetMobile": "nasnet", "NASNetLarge": "nasnet",
}  # fmt: skip
"""Network -> the module of `keras.applications` with its `preprocess_input`."""


def build(name: str, **options: Any) -> Any:
    keras.backend.clear_session()  # layers without a name of their own are counted from here
    return getattr(keras.applications, name)(weights=None, **options)


def record(target: Path) -> None:
    """One line a network: its name, its parameters, its layers that have weights."""
    with target.open("w", encoding="utf-8") as file:
        for name in MODULES:
            model = build(name)
            layers = [layer.name for layer in model.layers if layer.weights]
            file.write(f"{name} {model.count_params()} {' '.join(layers)}\n")


def compare(name: str, whole: Path, notop: Path, out: Path) -> None:
    """Writes numbers.npz (`features`, `logits`, `notop`) and Keras 3's two forms of the same weights."""
    model = build(name, classifier_activation=None)
    model.load_weights(whole)
    side = model.input_shape[1]
    normalise = getattr(keras.applications, MODULES[name]).preprocess_input
    x = normalise(keras_recipe.images(side).astype(np.float32))
    before = keras.Model(model.input, model.layers[-2].output) if not name.startswith("MobileNet") else None
    logits = model.predict(x, verbose=0)
    model.save_weights(out / "keras3.weights.h5")
    model.save(out / "model.h5")

    topless = build(name, include_top=False, pooling="avg", input_shape=(side, side, 3))
    topless.load_weights(notop)
    pooled = topless.predict(x, verbose=0)
    features = before.predict(x, verbose=0) if before is not None and name.startswith("VGG") else pooled
    topless.save_weights(out / "keras3_notop.weights.h5")
    np.savez(out / "numbers.npz", features=features, logits=logits, notop=pooled, side=side)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, help="the file to write")
    parser.add_argument("--name", choices=list(MODULES))
    parser.add_argument("--whole", type=Path, help="weights with the top")
    parser.add_argument("--notop", type=Path, help="the same without it")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.record:
        record(options.record)
    else:
        compare(options.name, options.whole, options.notop, options.out)


if __name__ == "__main__":
    main()
