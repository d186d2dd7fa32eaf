"""The section `register` of params.yaml."""

from __future__ import annotations

from pydantic import Field

from ..common.core.sections import Section


class RegisterParams(Section):
    """Under which name the model is kept."""

    name: str = Field("graft", pattern=r"^[^/:]+$", min_length=1)
    """The registered model's name in MLflow; without slash and colon."""

    smoke_images: int = Field(32, ge=1)
    """Test images on which the packaged copy, loaded in a fresh process, must agree with what evaluate saw."""
