"""How fashion-mnist-2000.zip was made: the first 200 training images of each class, as PNG.

python sample/make.py FOLDER    FOLDER holds train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz, as Debian's
                                package dataset-fashion-mnist puts them in /usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
EACH = 200
DATE = (2020, 5, 23, 0, 0, 0)


def main(folder: Path, archive: Path) -> None:
    pixels = np.frombuffer(gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    images = pixels.reshape(-1, 28, 28)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for code, name in enumerate(CLASSES):
            for row in np.flatnonzero(labels == code)[:EACH]:
                content = io.BytesIO()
                Image.fromarray(images[row]).save(content, "png", optimize=True)
                file.writestr(zipfile.ZipInfo(f"{name}/{row:05}.png", DATE), content.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).with_name("fashion-mnist-2000.zip"))
