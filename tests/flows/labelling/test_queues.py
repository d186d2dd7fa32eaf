from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from graft.flows.labelling.current import Labels
from graft.flows.labelling.queues import audit_items


@pytest.mark.parametrize(("kinds", "guess"), [(["hole"], "hole"), (["hole", "crack"], ""), ([], "")])
def test_a_suspected_good_image_has_a_kind_of_defect_as_guess_only_if_there_is_one(
    tmp_path: Path, kinds: list[str], guess: str
) -> None:
    folder = tmp_path / "data" / "audit"
    folder.mkdir(parents=True)
    row = {"image_id": "a" * 32, "path": "good/a.png", "label": "good", "suggested": "a defect", "p_suggested": None}
    pd.DataFrame([row]).to_parquet(folder / "label_issues.parquet")
    data = pd.DataFrame({"image_id": ["a" * 32, *kinds], "path": "", "label": ["good", *kinds]})
    (item,) = audit_items(tmp_path, Labels("anomaly", data, pd.DataFrame(), {}))
    assert (item.queue, item.guess) == ("suspect", guess)
