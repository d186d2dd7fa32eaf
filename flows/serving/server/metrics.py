"""What Prometheus reads: latency, queue, batches, answers by class, refusals, and how typical the pictures are."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from graft.tasks.register.serving import TYPICALITY

from ..columns import verdict
from .refusal import Refusal

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder in which worker processes put their numbers together."""

ATYPICAL = 0.05
"""A picture with a smaller p-value is unlike the training images; of ordinary pictures, this share is."""

CLASSES = 1000
"""With more classes than this, answers are not counted by class."""

LATEST = 1000
"""Answers over which the share of atypical pictures is taken."""

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 3, 4, 5, 6, 7, 8)


class Metrics:
    """The numbers of one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self.seconds = Histogram(
            "graft_request_seconds", "Time to answer.", ["route", "status"], buckets=SECONDS, registry=registry
        )
        self.queue = Gauge(
            "graft_queue_images", "Images waiting or worked on.", registry=registry, multiprocess_mode="livesum"
        )
        self.batch = Histogram("graft_batch_images", "Images per batch.", buckets=BATCHES, registry=registry)
        self.answers = Counter("graft_predictions", "Answers by class.", ["label"], registry=registry)
        self.abstained = Counter("graft_abstained", "Answers that the model is unsure of.", registry=registry)
        self.judged = Counter("graft_judged", "Answers with a typicality or p-value.", registry=registry)
        self.atypical = Counter("graft_atypical", f"Pictures with one below {ATYPICAL}.", registry=registry)
        self.atypical_share = Gauge(
            "graft_atypical_share",
            f"Their share of the latest {LATEST} answers; about {ATYPICAL} without drift.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.refused = Counter("graft_refused", "Requests and images refused.", ["reason"], registry=registry)
        self.model = Gauge(
            "graft_model_info", "Processes that serve it.", ["name", "version"], registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.swaps = Counter("graft_model_swaps", "Changes of the model.", ["outcome"], registry=registry)
        self.lost = Counter("graft_log_lost", "Answers that could not be logged.", registry=registry)
        self._latest: deque[bool] = deque(maxlen=LATEST)
        self._lock = threading.Lock()
        self._served = ("", "")
        for outcome in ("swapped", "failed"):
            self.swaps.labels(outcome)

    def serves(self, name: str, version: str) -> None:
        if self._served[0]:
            self.model.labels(*self._served).set(0)
        self._served = (name, version)
        self.model.labels(name, version).set(1)

    def refuse(self, refusal: Refusal) -> None:
        """Counts a refusal, once."""
        if not refusal.counted:
            refusal.counted = True
            self.refused.labels(refusal.kind).inc()

    def answered(self, answers: Sequence[dict[str, Any]], by_class: bool) -> None:
        for answer in answers:
            for label in _labels(answer) if by_class else ["all"]:
                self.answers.labels(label).inc()
            if answer.get("abstain"):
                self.abstained.inc()
            p = answer.get(TYPICALITY, answer.get("p_value"))
            if p is not None:
                self._judge(p < ATYPICAL)

    def _judge(self, atypical: bool) -> None:
        self.judged.inc()
        if atypical:
            self.atypical.inc()
        with self._lock:
            self._latest.append(atypical)
            self.atypical_share.set(sum(self._latest) / len(self._latest))

    def page(self) -> bytes:
        """Of this process, or of all that share a folder."""
        if SHARED not in os.environ:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)


def _labels(answer: dict[str, Any]) -> list[str]:
    if "label" in answer:
        return [answer["label"]]
    if "anomalous" in answer:
        return [verdict(answer)]
    return answer.get("labels", ["number"])
