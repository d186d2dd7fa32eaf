"""The section `features` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..common.params import Section


class FeaturesParams(Section):
    """Which frozen network sees the images, and on what it runs."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model name, with or without a tag."""

    weights: str = "auto"
    """`auto` takes the first of: data/weights/<backbone>.safetensors (or .pth, .pt, .bin), an installed weights
    package, timm's hub. Or say `package`, `hub`, a file's path, or `random` (for tests)."""

    weights_sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$")
    """If given, a weights file with another SHA-256 is refused."""

    precision: Literal["auto", "f32", "bf16"] = "auto"
    """`auto` takes bf16 where the processor has AMX, after comparing it with fp32 on the first images."""

    threads: int = Field(0, ge=0)
    """Decoding threads; 0 means one a core."""
