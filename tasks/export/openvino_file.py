"""The OpenVINO file: backbones, head, calibration, from pictures of the network's size.

OpenVINO's own Pillow modes took about a second an image, so the resize is left to the client; see `prepare.py`.
"""

from __future__ import annotations

from typing import Any

import openvino as ov

from .onnx_file import Parts, head_model
from .prepare import lines

PICTURES = "pictures"
"""The name of the input; of several backbones `pictures_0`, `pictures_1` and so on."""


def openvino_model(parts: Parts, facts: dict[str, str]) -> Any:
    """From pictures, uint8 (B, h, w, C), to the answers for them.

    Raises:
        GraftError: the head cannot be exported.
    """
    core = ov.Core()
    backbones = [core.read_model(graph) for graph in parts.graphs]
    parameters = []
    for name, backbone in zip(input_names(parts), backbones, strict=True):
        backbone.input(0).get_tensor().set_names({name})
        parameters.extend(backbone.get_parameters())
    features = [backbone.get_results()[0].input_value(0) for backbone in backbones]
    together = ov.opset13.concat(features, 1).output(0) if len(features) > 1 else features[0]
    head = core.read_model(head_model(parts, parts.head.dimension).SerializeToString())
    for target in list(head.input(0).get_target_inputs()):
        target.replace_source_output(together)
    model = ov.Model(head.get_results(), parameters, "graft")
    for key, value in facts.items():
        model.set_rt_info(value, ["graft", key])
    model.validate_nodes_and_infer_types()
    return model


def input_names(parts: Parts) -> list[str]:
    """Of each backbone."""
    several = len(parts.graphs) > 1
    return [f"{PICTURES}_{number}" if several else PICTURES for number in range(len(parts.graphs))]


def preparations(parts: Parts) -> dict[str, str]:
    """By the name of each input, the lines that make it."""
    return dict(zip(input_names(parts), map(lines, parts.transforms), strict=True))
