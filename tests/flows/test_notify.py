"""People are told: by webhooks and by Prefect's blocks; who cannot be told fails nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hook import Hook, listening

from flows.notify import TRIES, Notice, notify

NOTICE = Notice("refusal", "version 3 was refused", "because it is worse", {"the run": "http://run"}, {"version": "3"})


@pytest.fixture
def hook() -> Iterator[Hook]:
    with listening() as one:
        yield one


def test_a_webhook_gets_words_for_people_and_facts_for_machines(hook: Hook) -> None:
    assert notify([hook.address], NOTICE) == []
    (got,) = hook.got
    assert got["text"] == "version 3 was refused\n\nbecause it is worse\n\nthe run: http://run"
    assert (got["about"], got["facts"], got["title"]) == ("refusal", {"version": "3"}, "version 3 was refused")


def test_the_address_may_be_in_a_variable(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_WEBHOOK", hook.address)
    assert notify(["env:A_WEBHOOK"], NOTICE) == []
    assert len(hook.got) == 1
    assert "NO_SUCH_VARIABLE" in notify(["env:NO_SUCH_VARIABLE"], NOTICE)[0]


def test_a_webhook_in_trouble_is_tried_again_and_hinders_nobody_else(hook: Hook) -> None:
    hook.codes = [500, 503]
    assert notify([hook.address], NOTICE) == []
    assert len(hook.got) == 3
    hook.codes = [500] * TRIES
    problems = notify([hook.address, hook.address], NOTICE)
    assert len(problems) == 1
    assert len(hook.got) == 3 + TRIES + 1, "the second was told"
    assert "secret-path" not in problems[0].split(" was not told")[0]


def test_a_block_of_prefects_is_used_by_its_name(
    hook: Hook, prefect_api: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in prefect_api.items():
        monkeypatch.setenv(name, value)
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api["PREFECT_API_URL"]}):
        block = CustomWebhookNotificationBlock(
            name="hook", url=hook.address, json_data={"subject": "{{subject}}", "body": "{{body}}"}
        )
        block.save("graft-test", overwrite=True)
        assert notify(["custom-webhook/graft-test"], NOTICE) == []
        assert hook.got == [{"subject": NOTICE.title, "body": NOTICE.words()}]
        assert "was not told" in notify(["custom-webhook/none"], NOTICE)[0]
