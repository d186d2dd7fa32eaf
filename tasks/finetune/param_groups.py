"""Which parameters are trained, at which rate and with which decay, and from when on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from timm.optim import param_groups_layer_decay
from torch import nn

Group = dict[str, Any]
"""`params`, `weight_decay`, and `lr_scale`: the share of the rate, 1 for the last layer."""

THAWED = 0.5
"""Share of training after which progressive unfreezing has reached the first layer."""


def choose(backbone: nn.Module, layers: str) -> None:
    """Freezes what is not trained: nothing for `all`; all but norm layers for `norm` (Frankle et al. 2020); for
    `last_stage` the network is cut instead (see `cut`), and all that is left of it is trained."""
    if layers != "norm":
        return
    backbone.requires_grad_(False)
    for module in backbone.modules():
        if is_norm(module):
            module.requires_grad_(True)


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)) or (
        "Norm" in type(module).__name__ and not list(module.children())
    )


def is_transformer(network: nn.Module) -> bool:
    """Whether more than half of the parameters are in blocks with attention, as timm builds them."""
    blocks = [
        module for module in network.modules() if any("Attention" in type(part).__name__ for part in module.children())
    ]
    within = {id(value) for module in blocks for value in module.parameters()}
    everything = {id(value): value.numel() for value in network.parameters()}
    return 2 * sum(everything[one] for one in within) > sum(everything.values())


def groups(backbone: nn.Module, last: nn.Module, *, layer_decay: float, weight_decay: float) -> list[Group]:
    """The parameters that are trained, from the last layer to the first, each layer with `layer_decay` times the rate
    of the one above it (Clark et al. 2020, ELECTRA); decay on matrices and filters only.

    What a layer is says timm's own grouping of the network.
    """
    body: Any = backbone
    while isinstance(getattr(body, "network", None), nn.Module):  # within `Tail`, within `Pooled`
        body = body.network
    known: set[str] = getattr(body, "no_weight_decay", set)()
    logging.getLogger("timm.optim").setLevel(logging.ERROR)  # it warns of a body of one layer
    below: list[Group] = []
    if any(parameter.requires_grad for parameter in body.parameters()):
        below = param_groups_layer_decay(body, weight_decay, known, layer_decay=layer_decay)
        top = max(group["lr_scale"] for group in below)
        for group in below:
            group["lr_scale"] *= layer_decay / top
    above = [
        {"params": [last.weight], "weight_decay": weight_decay, "lr_scale": 1.0},
        {"params": [last.bias], "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    return above + sorted(below, key=lambda group: -group["lr_scale"])


def thaw(groups: Iterable[Group], at: float) -> list[bool]:
    """Which groups train when the share `at` of all steps is done, under progressive unfreezing (Howard & Ruder 2018):
    one layer after the other from the last to the first, all from `THAWED` on."""
    groups = list(groups)
    scales = sorted({group["lr_scale"] for group in groups}, reverse=True)
    open_until = 1 + int(at / THAWED * len(scales))
    return [scales.index(group["lr_scale"]) < open_until for group in groups]
