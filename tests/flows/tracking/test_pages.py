"""A search in MLflow that has more results than one page."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

from graft.flows.tracking.pages import all_pages


def test_all_results_come_in_order_and_pages_only_as_they_are_needed(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("pages", artifact_location=(tmp_path / "artifacts").as_uri())
    made = [client.create_run(experiment, start_time=number + 1).info.run_id for number in range(5)]
    asked: list[str | None] = []

    def search(experiments: list[str], page_token: str | None, max_results: int) -> object:
        asked.append(page_token)
        return client.search_runs(
            experiments, max_results=max_results, page_token=page_token, order_by=["attributes.start_time ASC"]
        )

    results = all_pages(search, [experiment], max_results=2)

    assert next(results).info.run_id == made[0]
    assert len(asked) == 1
    assert [run.info.run_id for run in results] == made[1:]
    assert len(asked) == 3
