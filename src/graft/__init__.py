"""Graft, a transfer-learning pipeline for images: `project = graft.open("folder")`.

The code lies in flows/ and tasks/, which are linked from here. What is exported is imported when it is first used, so
that `import graft` loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graft.flows.python.findings import Audit as Audit
    from graft.flows.python.findings import Status as Status
    from graft.flows.python.model import Model as Model
    from graft.flows.python.model import Predictions as Predictions
    from graft.flows.python.project import Project as Project
    from graft.flows.python.project import open_project as open
    from graft.flows.python.results import Features as Features
    from graft.flows.python.results import Report as Report
    from graft.tasks.common.core.errors import GraftError as GraftError

    __version__: str

_MODULES = {
    "open": "graft.flows.python.project:open_project",
    "Project": "graft.flows.python.project:Project",
    "Features": "graft.flows.python.results:Features",
    "Report": "graft.flows.python.results:Report",
    "Audit": "graft.flows.python.findings:Audit",
    "Status": "graft.flows.python.findings:Status",
    "Model": "graft.flows.python.model:Model",
    "Predictions": "graft.flows.python.model:Predictions",
    "GraftError": "graft.tasks.common.core.errors:GraftError",
}
"""Name -> module and name there."""

__all__ = ["Audit", "Features", "GraftError", "Model", "Predictions", "Project", "Report", "Status", "open"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("graft")
    if name not in _MODULES:
        raise AttributeError(f"module 'graft' has no attribute {name!r}")
    module, _, there = _MODULES[name].partition(":")
    return getattr(import_module(module), there)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
