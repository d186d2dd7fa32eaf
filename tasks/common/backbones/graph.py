"""A backbone as an OpenVINO graph on disk: converted once, then read without torch or timm.

A graph's folder is named by all that decides what it computes, and holds `graph.xml`, `graph.bin` and `spec.json`. In
the cache there is `hashes.json` too: a graph whose files do not match it is converted again, because one flipped bit in
`graph.bin` is enough for features that are far off.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import WeightsError
from ..core.files import json_digest, read_json, sha256, shared_folder, write_json, write_shared_json
from ..core.progress import say
from ..images.transform import Crop
from .spec import AS_TRAINED, Form, Spec, libraries
from .weights import WeightsSource

if TYPE_CHECKING:
    import torch

CONVERTER = 1
"""Raised whenever a change here makes other numbers."""

FILES = frozenset({"graph.xml", "graph.bin", "spec.json"})

HASHES = "hashes.json"
"""File name -> SHA-256 of the other files."""


@dataclass(frozen=True)
class Graph:
    """A graph on disk and what it is."""

    xml: Path
    spec: Spec

    def showing(self, crop: Crop) -> Graph:
        """The same network, shown another part of its images."""
        return replace(self, spec=self.spec.showing(crop))


def settled(form: Form, backbone: str, source: WeightsSource, cache: Path) -> Form:
    """`form`, whose size is `test` only if timm tests these weights otherwise than they were trained.

    So everything computed at the only size that most weights have keeps its name. What timm says is kept in the cache,
    because importing it takes seconds.
    """
    if form.image_size != "test" or (source.kind != "keras" and _tested_otherwise(backbone, cache)):
        return form
    return replace(form, image_size=None)


def _tested_otherwise(backbone: str, cache: Path) -> bool:
    memory = cache / "test_input" / f"{backbone}.json"
    with suppress(FileNotFoundError, ValueError, KeyError):  # none yet, or cut short by a crash
        known = read_json(memory)
        if known["timm"] == version("timm"):
            return bool(known["differs"])
    from .network import tested_otherwise

    differs = tested_otherwise(backbone)
    write_shared_json(memory, {"timm": version("timm"), "differs": differs})
    return differs


def backbone_graph(backbone: str, source: WeightsSource, cache: Path, form: Form = AS_TRAINED) -> Graph:
    """The graph of a pre-trained backbone, from the cache or newly converted (which takes some seconds).

    Raises:
        ParamsError: timm does not know the model.
        WeightsError: the weights are not available, or are another network's.
    """
    folder = _folder(backbone, source, cache, form)
    whole = is_whole(folder)
    if not whole:
        from . import network

        source = network.fetched(backbone, source)
        folder = _folder(backbone, source, cache, form)  # a file that was fetched just now has its hash from here on
        whole = is_whole(folder)
    if not whole:
        say(f"converting {backbone} (weights from {source.kind}: {source.where}); once for these weights")
        model = network.create(backbone, source, form)
        convert_into_cache(model, network.spec_of(model, backbone, source, form), folder)
    graph = read_graph(folder)
    if source.pinned and graph.spec.weights_sha256 != source.pinned:
        raise WeightsError(
            f"the graph of {backbone} was made from weights that are not the pinned ones: {folder}",
            got=graph.spec.weights_sha256,
            allowed=source.pinned,
            todo="change `features.weights_sha256`, or remove that folder so that the weights are fetched again",
        )
    return graph


def _folder(backbone: str, source: WeightsSource, cache: Path, form: Form) -> Path:
    """Weights of the hub are identified by their name alone, so that an existing graph is found without the hub; those
    of Keras by the hash that they must have, also when the file no longer exists."""
    digest = "" if source.kind == "hub" else source.sha256 or source.pinned
    key = {"backbone": backbone, "weights": f"{source.kind}: {source.where}", "sha256": digest, **asdict(form)}
    return cache / "graphs" / json_digest({**key, "converter": CONVERTER, "libraries": libraries()})


def read_graph(folder: Path) -> Graph:
    return Graph(folder / "graph.xml", Spec.from_dict(read_json(folder / "spec.json")))


def is_whole(folder: Path) -> bool:
    """Whether a cached graph's files are those that were written."""
    try:
        hashes = read_json(folder / HASHES)
        return set(hashes) >= FILES and all(sha256(folder / name) == known for name, known in hashes.items())
    except (OSError, ValueError, TypeError):  # missing, or damaged itself
        return False


def converted(
    model: Callable[[], torch.nn.Module],
    spec: Spec,
    folder: Path,
    note: str,
    notes: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph in a folder of the cache, where it is converted if it is missing or damaged.

    Args:
        model: gives what `spec` says.
        note: what is said before.
        notes: see `convert_into_cache`.
    """
    if not is_whole(folder):
        say(note)
        convert_into_cache(model(), spec, folder, notes)
    return read_graph(folder)


def convert_into_cache(
    model: torch.nn.Module, spec: Spec, folder: Path, notes: Mapping[str, Any] | None = None
) -> None:
    """`convert`, in place of a damaged graph if there is one.

    Args:
        notes: further files, by name: what they hold as JSON.
    """
    with shared_folder(folder) as part:
        convert(model, spec, part)
        for name, content in (notes or {}).items():
            write_json(part / name, content)
        write_json(part / HASHES, {name: sha256(part / name) for name in sorted({*FILES, *(notes or {})})})
        if folder.exists() and not is_whole(folder):
            say(f"{folder} is damaged, or from before graphs were verified; it is replaced")
            shutil.rmtree(folder)


def convert(model: torch.nn.Module, spec: Spec, folder: Path) -> None:
    """Writes the graph of `model`, which is what `spec` says, into `folder`.

    In: uint8 (B, H, W, C), normalisation folded in; out: float32 (B, D). B is free.
    """
    import warnings

    import openvino as ov
    import torch
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.preprocess import PrePostProcessor

    transform = spec.transform
    shape = (transform.channels, transform.height, transform.width)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing is deprecated in torch, and is what OpenVINO's converter does
        # Without torch's check, which traces a second time and takes longer than all the rest: a network in evaluation
        # does the same each time.
        traced = TorchScriptPythonDecoder(
            model, example_input=torch.zeros(1, *shape), trace_kwargs={"check_trace": False}
        )
        converted = ov.convert_model(traced, input=[-1, *shape])
    steps = PrePostProcessor(converted)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    normalise = steps.input().preprocess().convert_element_type(ov.Type.f32)
    normalise.mean([255 * value for value in transform.mean]).scale([255 * value for value in transform.std])
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(steps.build(), folder / "graph.xml", compress_to_fp16=False)
    write_json(folder / "spec.json", asdict(spec))
