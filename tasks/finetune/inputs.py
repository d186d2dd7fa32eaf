"""Sources of training's inputs: the images themselves, or the feature maps that the frozen layers compute.

Images are decoded and resized once, and augmented again in each epoch. Maps are computed once by the inference engine,
for each augmented view too, and kept in the feature cache under a fingerprint that includes the cut.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ..common.augmentation.augment import Augment, described
from ..common.backbones.graph import CONVERTER, converted
from ..common.backbones.spec import Spec
from ..common.core.errors import ParamsError
from ..common.core.files import free_bytes, json_digest, write_shared_json
from ..common.core.paths import Paths
from ..common.core.progress import progress
from ..common.data.feature_set import FeatureSet, Rows
from ..common.engines.openvino import Engine
from ..common.engines.torch import TorchEngine, best_device
from ..common.feature_cache.segments import VIEWS, FeatureCache, NotFinite, ids_of, view_key
from ..common.images.decode import Pixels
from ..common.images.transform import EvalTransform, load
from .batches import Array, Feed, Images
from .lessons import Lesson
from .order import HERE, FileOf, Maps, Place
from .pixel_cache import Decoded
from .split_network import Trunk

PROBE = 64
"""Images whose maps are computed to predict how long all would take."""

KEPT = 8_000_000_000
"""Bytes of decoded images that are kept for all their views."""


class Source(Protocol):
    """Gives training its images.

    Attributes:
        feed: turns them into the network's input.
        example: an input of two images.
    """

    feed: Feed
    example: torch.Tensor

    def seconds(self, others: Sequence[Lesson] = ()) -> tuple[float, float]:
        """How long the computation before training, and before these others, will take: of the random views, and of
        the plain images; measured by computing a small part."""

    def prepare(self) -> None:
        """Computes what training needs.

        Raises:
            ParamsError: the disk has no room for it.
        """

    def images(self, rows: Rows) -> Images:
        """Images of these rows of the feature set; in epoch -1 as for evaluation, otherwise a random view."""


@dataclass(frozen=True)
class Recipe:
    """How views are made; `named` is the same as JSON."""

    augment: Augment
    seed: int
    named: str

    @classmethod
    def of(cls, augment: Augment, seed: int) -> Recipe:
        steps = described(augment.recipe)
        return cls(augment, seed, json.dumps([VIEWS, version("albumentations"), steps, seed], sort_keys=True))


class FromImages:
    """Args:
    gigabytes: disk space for images that are decoded only once.
    file_of: where the images are.
    """

    def __init__(
        self,
        pack: FeatureSet,
        transform: EvalTransform,
        recipe: Recipe,
        paths: Paths,
        gigabytes: float,
        file_of: FileOf | None = None,
    ) -> None:
        self._pack, self._transform, self._augment = pack, transform, recipe.augment
        self._file_of = file_of or in_project(paths)
        self._files, self._ids = list(pack.index["path"]), list(pack.index["image_id"])
        self._decoded = Decoded(self._decode, paths.tmp, int(gigabytes * 1e9))
        self.feed = normalised(transform)
        self.example = torch.zeros(2, transform.channels, transform.height, transform.width)

    def seconds(self, others: Sequence[Lesson] = ()) -> tuple[float, float]:
        return 0.0, 0.0  # the first epoch decodes during training

    def prepare(self) -> None:
        """Nothing to do."""

    def images(self, rows: Rows) -> Images:
        return Images(
            lambda i, epoch: self._load(int(rows[i]), epoch), self._pack.targets(rows), self._pack.weights(rows)
        )

    def _decode(self, place: int) -> Pixels:
        row, is_view = divmod(place, 2)
        image_id = self._ids[row]
        file = self._file_of(self._files[row], image_id)
        if is_view:
            return self._augment.resized(file, image_id)
        return load(file, image_id, self._transform, self._pack.reading)

    def _load(self, row: int, epoch: int) -> Pixels:
        if epoch < 0:
            return self._decoded(2 * row)
        return self._augment.view(self._decoded(2 * row + 1), self._ids[row], epoch)


class FromMaps:
    """Args:
    trunk: the layers that stay frozen; `before` names the cut, `shape` is that of an image's maps.
    train, plain: rows whose maps are needed: of `views` views per row of `train`, of the plain images for `plain`.
    place: where the images are, and the maps, if others have made them.

    Attributes:
        views: per training image; 0 for the images without augmentation.
    """

    def __init__(
        self,
        pack: FeatureSet,
        spec: Spec,
        trunk: Trunk,
        before: str,
        shape: tuple[int, ...],
        recipe: Recipe,
        train: Rows,
        plain: Rows,
        views: int,
        paths: Paths,
        place: Place = HERE,
    ) -> None:
        self._pack, self._spec, self._trunk, self._shape, self._recipe = pack, spec, trunk, shape, recipe
        self._paths, self.views, self._views = paths, views, max(views, 1)
        self._file_of = place.file_of or in_project(paths)
        self._dimension = int(np.prod(shape))
        self._before = before
        self._rows = np.concatenate([np.repeat(train, self._views), plain])
        number = np.arange(views) if views else np.array([-1])
        self._numbers = np.concatenate([np.tile(number, len(train)), np.full(len(plain), -1)])
        self._first = {int(row): place * self._views for place, row in enumerate(train)}
        self._first |= {int(row): len(train) * self._views + place for place, row in enumerate(plain)}
        self._image_ids = list(pack.index["image_id"])
        self._ids = ids_of([
            self._id(int(row), int(number)) for row, number in zip(self._rows, self._numbers, strict=True)
        ])  # fmt: skip
        self._train = frozenset(map(int, train))
        self._is_plain = frozenset(map(int, plain))
        fingerprint = place.maps.fingerprint if place.maps else self._fingerprint()
        folder = place.maps.folder if place.maps else paths.cache / "features" / str(fingerprint["digest"])
        self._cache = FeatureCache(folder, self._dimension, "float16")
        self._note = fingerprint
        self._maps: npt.NDArray[np.float16] | None = None
        self.feed = as_maps(shape)
        self.example = torch.zeros(2, *shape)

    def seconds(self, others: Sequence[Lesson] = ()) -> tuple[float, float]:
        missing = np.flatnonzero(~self._cache.has(self._ids))
        views, plain = self._missing(others)
        if not len(missing):
            return 0.0, 0.0
        few = missing[:PROBE]
        self._describe_cache()
        engine = self._engine()
        started = time.perf_counter()
        self._compute(few, engine)
        each = (time.perf_counter() - started) / len(few)
        return each * views, each * plain

    def _missing(self, others: Sequence[Lesson]) -> tuple[int, int]:
        """How many maps are not cached yet: (of views, of plain images)."""
        learned, plain = set(self._train), set(self._is_plain)
        for other in others:
            learned |= set(map(int, other.learned))
            plain |= set(map(int, other.inner)) | set(map(int, other.judged))
        of_views, of_plain = (
            [self._id(row, number) for row in sorted(rows) for number in numbers]
            for rows, numbers in ((learned, range(self.views) if self.views else [-1]), (plain, [-1]))
        )
        views, plain_ones = (
            int(np.count_nonzero(~self._cache.has(ids_of(ids)))) if ids else 0 for ids in (of_views, of_plain)
        )
        return views, plain_ones

    def _id(self, row: int, number: int) -> str:
        """The name of a view's map, or of a plain image's for -1."""
        image_id = self._image_ids[row]
        return image_id if number < 0 else view_key(image_id, number, self._recipe.named)

    def prepare(self) -> None:
        needed = len(self._ids) * self._dimension * 2
        free = free_bytes(self._paths.tmp)
        missing = int(np.count_nonzero(~self._cache.has(self._ids)))
        wanted = needed + missing * self._dimension * 2
        if wanted > free:
            raise ParamsError(
                "params.yaml: the disk has no room for the maps of `finetune.layers: last_stage`",
                got=f"{wanted / 1e9:.1f} GB for {len(self._ids):,} images and views of {self._dimension:,} numbers",
                allowed=f"{free / 1e9:.1f} GB",
                todo="set fewer `finetune.views`, or `finetune.layers: all`",
            )
        file = tempfile.TemporaryFile(dir=self._paths.tmp)  # noqa: SIM115  (open as long as its map)
        maps = np.memmap(file, np.float16, "w+", shape=(len(self._ids), self._dimension))
        self._describe_cache()
        for places, block in self._cache.read_all(self._ids, lambda places: self._compute(places, self._engine())):
            maps[places] = block
        self._maps = maps

    @property
    def maps(self) -> Maps:
        """All that training reads."""
        return Maps(self._cache.folder, self._note, self._ids)

    def _describe_cache(self) -> None:
        """Writes what the cached maps are, for `graft cache`."""
        write_shared_json(self._cache.folder / "fingerprint.json", self._note)

    def images(self, rows: Rows) -> Images:
        def load(i: int, epoch: int) -> Array:
            assert self._maps is not None
            row = int(rows[i])
            turn = 0 if row in self._is_plain else epoch % self._views
            return self._maps[self._first[row] + turn]

        return Images(load, self._pack.targets(rows), self._pack.weights(rows))

    def blank(self, rows: Rows) -> Images:
        """The same number of empty images: the cost of a step does not depend on their content."""
        nothing = np.zeros(self._dimension, np.float16)
        return Images(lambda i, epoch: nothing, self._pack.targets(rows), self._pack.weights(rows))

    def _compute(self, places: npt.NDArray[np.int64], engine: Engine | TorchEngine) -> None:
        files, ids = self._pack.index["path"], self._pack.index["image_id"]
        transform, augment, file_of = self._spec.transform, self._recipe.augment, self._file_of
        resized = Decoded(lambda row: augment.resized(file_of(files[row], ids[row]), ids[row]), self._paths.tmp, KEPT)

        def load_item(i: int) -> Pixels:
            row, number = int(self._rows[places[i]]), int(self._numbers[places[i]])
            if number < 0:
                return load(file_of(files[row], ids[row]), ids[row], transform, self._pack.reading)
            return augment.view(resized(row), ids[row], number)

        try:
            with self._cache as cache, progress(f"finetune: maps before {self._before}", len(places)) as bar:
                for start, batch in engine.stream(load_item, len(places)):
                    cache.add(self._ids[places[start : start + len(batch)]], batch)
                    bar.add(len(batch))
        except NotFinite as error:
            raise ParamsError(
                f"params.yaml: `finetune.layers: last_stage` does not work with {self._spec.backbone}",
                got=f"maps before {self._before} with {error.got}",
                allowed="maps whose numbers are below 65,504",
                todo="set `finetune.layers: all`",
            ) from error
        self._cache.refresh()

    def _fingerprint(self) -> dict[str, Any]:
        device = "cuda" if best_device() == "cuda" else "cpu"
        facts = {
            **asdict(self._spec),
            "dimension": self._dimension,
            "cut_before": self._before,
            "engine": "torch" if device == "cuda" else "openvino",
            "device": device,
            "precision": self._pack.precision,
            "dtype": "float16",
            "converter": CONVERTER,
        }
        if self._pack.reading.span is not None:
            facts["range"] = self._pack.reading.span
        return {**facts, "digest": json_digest(facts)[:32]}

    def _engine(self) -> Engine | TorchEngine:
        if best_device() == "cuda":
            return TorchEngine(self._trunk, self._spec.transform, "cuda", self._pack.precision)
        folder, spec = self._paths.cache / "graphs" / str(self._note["digest"]), self._spec
        note = f"finetune: converting the frozen layers of {spec.backbone}; once for this cut"
        graph = converted(lambda: self._trunk, replace(spec, dimension=self._dimension), folder, note)
        return Engine(graph.xml, self._pack.precision)


def normalised(transform: EvalTransform) -> Feed:
    """uint8 (H, W, C) -> normalised as in pre-training, channels last in memory."""
    mean, std = (
        torch.tensor([255 * value for value in values]).view(1, -1, 1, 1) for values in (transform.mean, transform.std)
    )

    def feed(batch: Array, device: torch.device) -> torch.Tensor:
        x_BCHW = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2)
        return (x_BCHW.float() - mean.to(device)) / std.to(device)

    return feed


def as_maps(shape: tuple[int, ...]) -> Feed:
    """float16 numbers -> float32 in their shape, channels last in memory where there are channels."""

    def feed(batch: Array, device: torch.device) -> torch.Tensor:
        maps = torch.from_numpy(batch).to(device).float().view(-1, *shape)
        return maps.contiguous(memory_format=torch.channels_last) if maps.ndim == 4 else maps

    return feed


def in_project(paths: Paths) -> FileOf:
    """The images of data/raw."""
    return lambda path, _: paths.raw / path


def room(images: int, dimension: int, gigabytes: float) -> int:
    """The number of views per image whose maps fit into the space, at least one."""
    return max(1, int(gigabytes * 1e9 / (2 * dimension * images)))
