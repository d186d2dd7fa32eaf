"""One training from start to end: the network, its last layer, and the source of their inputs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..common.augmentation.augment import Augment, named_recipe
from ..common.backbones import network
from ..common.backbones.spec import Spec
from ..common.backbones.weights import WeightsSource, find_weights, same_weights
from ..common.core.cores import cores
from ..common.core.errors import GraftError, ParamsError
from ..common.core.paths import Paths
from ..common.core.progress import say
from ..common.data.feature_set import FeatureSet, Rows
from ..common.heads.linear import LinearHead
from .auto_rules import Architecture, plan
from .batches import Array
from .checkpoint import VERSION, Course, read_course
from .decision import Cost
from .inputs import FromImages, FromMaps, Recipe, Source, room
from .lessons import MAIN, Lesson
from .loss import Goal
from .order import HERE, Elsewhere, FileOf, Order, Place
from .param_groups import choose, is_transformer
from .params import FREE, FinetuneParams
from .split_network import Tail, cut, last_stage
from .start import start_head
from .trainer import Trainer


class Job:
    """Training on the rows `train` of a feature set, whose rate and epoch the rows `inner` choose.

    Args:
        head: where the last layer starts, which has not learned `inner`; from scratch it starts at zero.
        also: further rows for which `output` will be called.
        name: of the training, see `lessons.py`; several processes find their rows by it.
        stop: the epoch after which it ends, though its schedule goes on.
        metric: of the curves, a key of `METRICS`.
        place: where it runs.

    Attributes:
        plan: the values that `auto` stands for.
        augment: the random views.

    Raises:
        ParamsError: the backbone cannot be cut as asked, or the recipe does not exist.
        WeightsError: the backbone's weights are missing, or differ from those that computed the features.
    """

    def __init__(
        self,
        params: FinetuneParams,
        pack: FeatureSet,
        head: LinearHead,
        paths: Paths,
        train: Rows,
        inner: Rows,
        also: Rows | None = None,
        *,
        name: str = MAIN,
        stop: int | None = None,
        metric: str = "auto",
        place: Place = HERE,
    ) -> None:
        self._params, self._pack, self._head, self._paths = params, pack, head, paths
        self._metric, self._place = metric, place
        self._train, self._inner, self._name = train, inner, name
        self._plain = inner if also is None else np.concatenate([inner, also])
        self._spec = Spec.from_dict(pack.fingerprint)
        recipe = named_recipe(params.augment, self._spec.transform, flip=params.flip)
        self.augment = Augment(self._spec.transform, recipe, params.seed, pack.reading)
        self._weights = place.weights or _weights(params, self._spec, paths)
        self._network = _network(params, self._spec, self._weights)
        architecture: Architecture = "transformer" if is_transformer(self._network) else "convolution"
        self.plan = replace(plan(params, len(train), architecture), stop=stop)
        self._tail: Tail | None = None
        self._source = self._make_source()
        self._goal = Goal.of(pack.task, pack.targets(train), params.label_smoothing, metric)
        body = self._tail or self._network
        choose(body, params.trained)
        self._trainer = Trainer(
            body, self._start(), self._source.feed, self._source.example, params, self.plan, self._goal
        )

    def _make_source(self) -> Source:
        recipe = Recipe.of(self.augment, self._params.seed)
        if self._params.trained != "last_stage":
            room_gb, file_of = self._params.cache_gb, self._place.file_of
            return FromImages(self._pack, self._spec.transform, recipe, self._paths, room_gb, file_of)
        transform = self._spec.transform
        shape = (transform.channels, transform.height, transform.width)
        before = last_stage(self._network, shape)
        trunk, self._tail = cut(self._network, before, shape)
        views = self.plan.views
        if self._params.views == "auto":
            views = min(views, room(len(self._train), int(np.prod(self._tail.shape)), self._params.cache_gb))
        return FromMaps(
            self._pack,
            self._spec,
            trunk,
            before,
            self._tail.shape,
            recipe,
            self._train,
            self._plain,
            views,
            self._paths,
            self._place,
        )

    def _start(self) -> tuple[Array, Array]:
        weight, bias = self._goal.start(self._head)
        if self._params.init == "scratch":
            return np.zeros_like(weight), np.zeros_like(bias)
        return weight, bias

    def cost(self, others: Sequence[Lesson] = ()) -> Cost:
        """How long this training and others of the same kind would take, measured on a few images and steps."""
        images = self._source.images(self._train), self._source.images(self._inner)
        if isinstance(self._source, FromMaps):
            images = self._source.blank(self._train), self._source.blank(self._inner)
        search, epoch = self._trainer.seconds(*images)
        times = 1 + sum(len(other.learned) for other in others) / len(self._train)
        searches = 1 + sum(len(other.learned) for other in others if len(other.inner)) / len(self._train)
        views, plain = self._source.seconds(others)
        each = self._params.views == "auto"  # as many views as epochs
        once = plain + (0.0 if each else views) + search * searches
        return Cost(once, epoch * times + (views / self.plan.epochs if each else 0.0))

    def seconds(self) -> float:
        """How long this training would take."""
        return 60 * self.cost().minutes(self.plan.epochs)

    def run(
        self,
        checkpoint: Path,
        deadline_seconds: float | None,
        share: float = 1.0,
        saved: Callable[[Course], None] | None = None,
    ) -> Course:
        """Trains, or resumes from the checkpoint; afterwards the network is that of the best epoch.

        Args:
            deadline_seconds: includes the time for what is computed before training.
            share: of the time after that, for this training.
            saved: called by one process after each checkpoint.
        """
        started = time.perf_counter()
        self._source.prepare()
        before = time.perf_counter() - started
        left = None if deadline_seconds is None else max(deadline_seconds - before, 0.0) * share
        if self._trainer.is_alone:
            self._let_others_train(checkpoint, left)
        images = self._source.images(self._train), self._source.images(self._inner)
        course = self._trainer.run(*images, checkpoint, left, saved)
        course.preparation = before
        return course

    def output(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Probabilities (len(rows), K), or numbers (len(rows), 1); only for rows given to the constructor."""
        return self._trainer.output(self._source.images(rows))

    def network(self) -> nn.Module:
        """The whole backbone in its current state, on the processor, in evaluation mode."""
        if self._tail is not None:
            self._tail.cpu().into(self._network)
        return self._network.cpu().eval()

    def head(self) -> LinearHead:
        return self._trainer.head(self._pack.classes)

    def settled(self) -> dict[str, Any]:
        """The values that `auto` stands for, and which layers are trained."""
        trained = sum(value.numel() for value in self._trainer.network.parameters() if value.requires_grad)
        facts: dict[str, Any] = {**vars(self.plan), "trained_parameters": trained}
        for name in ("stop", "tried_rates"):
            facts.pop(name)
        if isinstance(self._source, FromMaps):
            facts |= {"cut_before": self._tail.before if self._tail else "", "views": self._source.views}
        else:
            facts.pop("views")
        return facts

    def checkpoint(self) -> Path:
        """Its name is a hash of everything that determines the result: a training with another recipe, other images,
        weights or another head, or by another version, must not resume from it."""
        digest = hashlib.sha256(f"{VERSION}:{self._name}:{self.plan.stop}".encode())
        digest.update(self._params.model_dump_json(exclude=FREE).encode())
        digest.update(self._pack.fingerprint["digest"].encode())
        digest.update(self._pack.index[["image_id", "label", "task", "split", "weight"]].to_csv(index=False).encode())
        digest.update(self._train.tobytes() + self._inner.tobytes())
        digest.update(self._head.weight.tobytes())
        return self._paths.checkpoints / f"finetune-{digest.hexdigest()[:32]}.safetensors"

    def _let_others_train(self, checkpoint: Path, deadline_seconds: float | None) -> None:
        """Other machines, or several processes, if that is asked for: the checkpoint then contains the result."""
        processes, elsewhere = self._processes(), self._place.elsewhere
        if elsewhere is None and processes == 1:
            return
        if checkpoint.is_file() and read_course(checkpoint).ended:
            return
        if elsewhere is None:
            self._share(processes, deadline_seconds)
        else:
            elsewhere(self._order(checkpoint, deadline_seconds))

    def _order(self, checkpoint: Path, seconds: float | None) -> Order:
        maps = self._source.maps if isinstance(self._source, FromMaps) else None
        return Order(
            self._params, self._pack, self._head, self._train, self._inner, self._name, self.plan.stop, self._metric,
            self._weights, maps, checkpoint, seconds, self._most(),
        )  # fmt: skip

    def _most(self) -> int:
        """Processes that have a pair each of a step's images."""
        return max(1, -(-min(self._params.batch_size, len(self._train)) // 2))

    def _processes(self) -> int:
        """Raises:
        ParamsError: too many for each to have a pair of a step's images.
        """
        most = self._most()
        asked = self._params.processes or max(1, min(torch.cuda.device_count(), most))
        if asked > most:
            raise ParamsError(
                "params.yaml: `finetune.processes` is too large for the images of a step",
                got=asked,
                allowed=f"1 to {most}, one for each pair of a step's images",
                todo="set fewer processes, or a larger `finetune.batch_size`",
            )
        return asked

    def _share(self, processes: int, deadline_seconds: float | None) -> None:
        """Trains in several processes to the end; their checkpoint contains the result.

        Raises:
            GraftError: one of them failed, and has printed why.
        """
        say(f"finetune: {processes} processes share each step's images")
        launch = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [*launch, "-m", "graft.tasks.finetune.worker", str(self._paths.root), self._params.model_dump_json()]
        command += ["--lesson", self._name]
        command += [] if deadline_seconds is None else ["--seconds", str(deadline_seconds)]
        command += [] if self.plan.stop is None else ["--stop", str(self.plan.stop)]
        threads = str(max(1, cores() // processes))
        environment = {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONSAFEPATH": "1"}  # `-P` for the workers
        ended = subprocess.run(command, env=environment, check=False).returncode
        if ended:
            raise GraftError(
                "fine-tuning in several processes failed",
                got=f"exit status {ended}",
                todo="see their output above; `finetune.processes: 1` trains in this process",
            )


def _weights(params: FinetuneParams, spec: Spec, paths: Paths) -> WeightsSource:
    if params.init == "scratch":
        return find_weights(spec.backbone, "random", paths.weights)
    found = same_weights(spec.backbone, spec.weights, spec.weights_sha256, paths.weights)
    return network.fetched(spec.backbone, found)


def _network(params: FinetuneParams, spec: Spec, weights: WeightsSource) -> nn.Module:
    if params.init == "scratch":
        return network.create(spec.backbone, weights, spec.form, params.seed)
    return network.create_again(spec, weights)


def open_order(order: Order, paths: Paths, file_of: FileOf) -> Job:
    """The training of an order.

    Args:
        paths: of a folder that stands for the project.
        file_of: the images.
    """
    place = Place(file_of, order.weights, order.maps)
    return Job(
        order.params, order.pack, order.head, paths, order.train, order.inner,
        name=order.name, stop=order.stop, metric=order.metric, place=place,
    )  # fmt: skip


def open_lesson(
    lesson: Lesson,
    params: FinetuneParams,
    pack: FeatureSet,
    facts: dict[str, Any],
    paths: Paths,
    stop: int | None = None,
    elsewhere: Elsewhere | None = None,
) -> Job:
    """The training of a lesson, from a head of its own.

    Args:
        pack: with the weights of images and classes.
        facts: `selected.json`.
        elsewhere: trains for this process.
    """
    head = start_head(pack, lesson.learned, facts, paths)
    return Job(
        params, pack, head, paths, lesson.learned, lesson.inner, lesson.judged,
        name=lesson.name, stop=stop, metric=facts.get("metric", "auto"), place=Place(elsewhere=elsewhere),
    )  # fmt: skip
