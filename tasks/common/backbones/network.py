"""A timm network with its weights, as a rule without its classifier. Imports torch and timm, which takes seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch

from ..core.errors import ParamsError, WeightsError, nearest
from ..images.transform import EvalTransform
from . import caches, fetch, keras
from .adapt import adapt, check_input, over_channels, size_of
from .catalogue import KERAS_FILES, entry_of, short_names
from .pooling import pooled
from .spec import AS_TRAINED, Form, Spec, libraries
from .weights import WeightsSource, check_same, fit_state, read_checkpoint, read_state


def create(backbone: str, source: WeightsSource, form: Form = AS_TRAINED, seed: int = 0) -> torch.nn.Module:
    """The network in evaluation mode; its output is the feature vector, or the logits, float32 (B, D).

    Args:
        seed: of weights that are random.

    Raises:
        ParamsError: timm does not know the model, or it does not take images of this size or number of channels.
        WeightsError: the weights are not available, belong to another network, or have no classifier for `logits`.
    """
    source = fetched(backbone, source)
    torch.manual_seed(seed)
    model = adapt(_with_weights(backbone, source, form), backbone, form)
    if form.output != "logits":
        model.reset_classifier(0)  # type: ignore[operator]
    elif not model.num_classes:
        raise _without_classifier(backbone, source)
    check_input(model.eval(), backbone, form)
    transform = eval_transform(model, form)
    return pooled(model, backbone, form.output, (transform.channels, transform.height, transform.width)).eval()


def _with_weights(backbone: str, source: WeightsSource, form: Form) -> torch.nn.Module:
    entry = entry_of(backbone)
    if source.file is None:
        return timm.create_model(backbone, pretrained=False)
    if source.kind == "keras" and entry is not None:
        return keras.create(entry, source.file, form.output)
    if source.kind == "hub":
        return _as_timm_does(backbone, source.file)
    model: torch.nn.Module = timm.create_model(backbone, pretrained=False)
    state = read_state(source.file)
    if _lacks_classifier(model, set(state)):
        if form.output == "logits":
            raise _without_classifier(backbone, source)
        model.reset_classifier(0)  # type: ignore[operator]
    fit_state(model, state, backbone)
    return model


def fetched(backbone: str, source: WeightsSource) -> WeightsSource:
    """`source` with its file and its hash, fetched if need be; see `fetch.fetched`.

    Raises:
        ParamsError: timm does not know the model.
        WeightsError: timm does not know the tag, or the weights are not available.
    """
    if not timm.is_model(backbone):
        raise ParamsError(
            "params.yaml: `features.backbone` is not a timm model",
            got=backbone,
            allowed="a name that `graft models` lists, or any that `timm.list_models()` gives",
            todo=nearest(backbone, [*short_names(), *timm.list_models()])
            or "look the name up: graft models WORD --all",
        )
    caches.origin(backbone)  # refuses a tag that timm does not know, wherever the weights come from
    return fetch.fetched(backbone, source)


def is_known(backbone: str) -> bool:
    """Whether timm has the architecture, and the tag if there is one."""
    try:
        return timm.is_model(backbone) and timm.get_pretrained_cfg(backbone) is not None
    except RuntimeError:  # what timm raises for a tag that it does not know
        return False


def tested_otherwise(backbone: str) -> bool:
    """Whether timm tests these weights with images of another size, or another share of them, than in training."""
    if not is_known(backbone):
        return False
    known = timm.get_pretrained_cfg(backbone)
    return bool(known.test_input_size or known.test_crop_pct)


def _lacks_classifier(model: torch.nn.Module, names: set[str]) -> bool:
    """Whether a file lacks only the classifier; names of another library are left to `fit_state`."""
    known: Any = model.pretrained_cfg
    parts = known["classifier"] or ()
    last = tuple(f"{part}." for part in ([parts] if isinstance(parts, str) else parts))
    missing = set(model.state_dict()) - names
    return bool(missing) and all(name.startswith(last) for name in missing)


def _without_classifier(backbone: str, source: WeightsSource) -> WeightsError:
    entry = entry_of(backbone) if source.kind == "keras" else None
    whole = f"{KERAS_FILES}{entry.keras.path}" if entry else "the whole file"
    return WeightsError(
        f"these weights of {backbone} are without a classifier, so they have no labels to give",
        got=f"{source.kind}: {source.where}",
        allowed="weights with the classifier of their pre-training",
        todo=f"take {whole}, or use this one for features only",
    )


def create_again(spec: Spec, source: WeightsSource) -> torch.nn.Module:
    """The network of `spec` once more.

    Raises:
        WeightsError: the source has other weights by now.
    """
    source = fetched(spec.backbone, source)
    model = create(spec.backbone, source, spec.form)
    found = source.sha256 or state_sha256(model.state_dict().items())
    check_same(spec, found, source)
    return model


def _as_timm_does(backbone: str, file: Path) -> torch.nn.Module:
    """The network with the weights of timm's own file, which timm may have to rename or to cut.

    timm is given the tensors and not the file: not every version of it would refuse code in it.

    Raises:
        WeightsError: the file is damaged, contains more than data, or belongs to another network.
    """
    state = read_checkpoint(file)
    try:
        model = timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except Exception as error:  # a network's own filter may raise anything for unknown tensors
        raise WeightsError(
            f"the weights in {file} are not those of {backbone}",
            got=(str(error) or type(error).__name__).splitlines()[0][:300],
            allowed=f"the tensors of timm's {backbone}",
            todo="remove the file and run again with a network, so that it is downloaded again",
        ) from error
    model.pretrained_cfg.pop("state_dict")  # or it would keep all tensors twice
    return model


def spec_of(model: torch.nn.Module, backbone: str, source: WeightsSource, form: Form = AS_TRAINED) -> Spec:
    """What `model`, as `create` gave it from a source that is `fetched`, is."""
    transform = eval_transform(model, form)
    with torch.inference_mode():
        dimension = int(model(torch.zeros(1, transform.channels, transform.height, transform.width)).shape[1])
    return Spec(
        backbone=backbone,
        weights=f"{source.kind}: {source.where}",
        weights_sha256=source.sha256 or state_sha256(model.state_dict().items()),
        dimension=dimension,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        form=form,
        transform=transform,
        libraries=libraries(),
    )


def eval_transform(model: torch.nn.Module, form: Form = AS_TRAINED) -> EvalTransform:
    """The evaluation geometry of the network's own pre-training, for images of `form`."""
    tested = form.image_size == "test"
    config: dict[str, Any] = timm.data.resolve_model_data_config(model, use_test_size=tested)
    height, width = size_of(model, form) or config["input_size"][1:]
    return EvalTransform(
        height=height,
        width=width,
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=over_channels(config["mean"], form.channels),
        std=over_channels(config["std"], form.channels),
    )


def state_sha256(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """A hash of tensors by name and value, independent of the file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
