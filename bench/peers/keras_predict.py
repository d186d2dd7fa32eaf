"""Keras 3 on TensorFlow: `model.predict` fed by `image_dataset_from_directory`.

`image_dataset_from_directory` resizes straight to the network's size, which is less work than timm's resize and crop.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from .measurements import BATCH, Measurements, arguments

SIDE = 224

NETWORKS: dict[str, tuple[Any, Any]] = {
    "resnet50": (keras.applications.ResNet50, keras.applications.resnet50.preprocess_input),
    # Keras has no lite0; B0 is the network that lite0 was made from, and normalises inside.
    "tf_efficientnet_lite0": (keras.applications.EfficientNetB0, None),
}


def main() -> None:
    options = arguments(__doc__).parse_args()
    network, normalise = NETWORKS[options.backbone]
    model = network(weights=None, include_top=False, pooling="avg", input_shape=(SIDE, SIDE, 3))
    images = keras.utils.image_dataset_from_directory(
        options.folder, labels=None, image_size=(SIDE, SIDE), batch_size=BATCH, shuffle=False, verbose=False
    )
    files = [path[len(str(options.folder)) + 1 :] for path in images.file_paths]
    if normalise is not None:
        images = images.map(normalise, num_parallel_calls=tf.data.AUTOTUNE)
    images = images.prefetch(tf.data.AUTOTUNE)
    model.predict(tf.data.Dataset.from_tensors(np.zeros((BATCH, SIDE, SIDE, 3), np.float32)).repeat(2), verbose=0)

    measured = Measurements(options.out, len(files))
    measured.loop("", lambda: model.predict(images, verbose=0))
    measured.write(files, keras=keras.__version__, tensorflow=tf.__version__)


if __name__ == "__main__":
    main()
