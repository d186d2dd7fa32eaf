import pandas as pd

from graft.flows.gate.data_checks import _suspects
from graft.flows.runtime.params import load_params
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.preprocess.label_history import Answer, append_answers, now


def test_a_label_that_a_person_gave_is_not_suspected(project):
    """Images that a strategy chose are hard, and look wrong to the models."""
    paths = Paths(project.root)
    gate, pack = load_params(paths.params).gate, read_feature_set(paths.features)
    chosen = list(pack.index.iloc[pack.rows("train", "val")]["image_id"])[:12]
    pd.DataFrame({"image_id": chosen}).to_parquet(paths.audit / "label_issues.parquet")
    before = _suspects(paths, None, gate)
    append_answers(paths.labels, [Answer(image_id, "red", "ann", now(), "margin") for image_id in chosen])
    after = _suspects(paths, None, gate)
    assert (before.outcome, after.outcome) == ("failed", "passed")
    assert "12 of" in before.found
    assert "0 of" in after.found
