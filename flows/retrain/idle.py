"""Whether a project has nothing to run, to register or to judge."""

from __future__ import annotations

from pathlib import Path

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths

from ..registry.models import CHAMPION, aliases_of, find_version
from ..registry.promotion import GATE
from ..registry.registering import misplaced_challenger
from ..registry.registration import read_registration
from ..status.pending import Changes, pending_here
from ..tracking.tracker import Tracker


def nothing_to_do(paths: Paths) -> str:
    """The message of a run that finds nothing changed."""
    last = read_json(paths.run("register")) if paths.run("register").is_file() else {}
    since = f" since the run {last['parent_run_id'][:8]} in MLflow" if last else ""
    return f"nothing to do: images, code and parameters are unchanged{since}"


def is_idle(root: Path, changes: Changes) -> bool:
    """Whether no stage would run, and the package is registered, the challenger, and judged by the gate."""
    registered = read_registration(Paths(root))
    if not changes.empty or changes.note or registered is None:
        return False
    tracker = Tracker(root)
    if misplaced_challenger(tracker):
        return False
    version = find_version(tracker, registered.name, registered.version)
    return GATE in version.tags or aliases_of(tracker, registered.name).get(CHAMPION) == registered.version


def idle_message(root: Path) -> str:
    """`nothing_to_do` if the checkout has nothing to do; else empty. Takes seconds less than the flow itself."""
    if not (root / "dvc.lock").is_file() or not is_idle(root, pending_here(root)):
        return ""
    return nothing_to_do(Paths(root))
