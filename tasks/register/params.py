"""The section `register` of params.yaml."""

from __future__ import annotations

from pydantic import Field

from ..common.core.sections import Section


class RegisterParams(Section):
    """The registered model, and its check."""

    name: str = Field("graft", pattern=r"^[^/:]+$", min_length=1)
    """Name of the registered model in MLflow, without slash and colon."""

    smoke_images: int = Field(32, ge=1)
    """Test images on which the package, loaded in a fresh process, must agree with evaluate."""
