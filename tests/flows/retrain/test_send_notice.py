"""Notifications by webhooks and by Prefect's blocks; one that cannot be delivered fails nothing and tells no secret."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hook import Hook, listening

from graft.flows.retrain import send_notice as module
from graft.flows.retrain.send_notice import WAITS, Notice, notify

NOTICE = Notice("refusal", "version 3 was refused", "because it is worse", {"the run": "http://run"}, {"version": "3"})


@pytest.fixture
def hook() -> Iterator[Hook]:
    with listening() as one:
        yield one


def test_a_webhook_gets_text_for_readers_and_facts_for_programs(hook: Hook) -> None:
    assert notify([hook.address], NOTICE) == []
    (got,) = hook.got
    assert got["text"] == "version 3 was refused\n\nbecause it is worse\n\nthe run: http://run"
    assert (got["about"], got["facts"], got["title"]) == ("refusal", {"version": "3"}, "version 3 was refused")


def test_the_address_may_be_in_a_variable(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_WEBHOOK", hook.address)
    assert notify(["env:A_WEBHOOK"], NOTICE) == []
    assert len(hook.got) == 1
    assert "NO_SUCH_VARIABLE" in notify(["env:NO_SUCH_VARIABLE"], NOTICE)[0]


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited between tries."""
    seconds: list[float] = []
    monkeypatch.setattr(module, "sleep", seconds.append)
    return seconds


def test_a_webhook_in_trouble_is_tried_again_after_a_while_and_hinders_no_other(
    hook: Hook, waited: list[float]
) -> None:
    hook.codes = [500, 503]
    assert notify([hook.address], NOTICE) == []
    assert len(hook.got) == 3
    assert waited == list(WAITS)
    assert 0 < waited[0] < waited[1]
    tries = len(WAITS) + 1
    hook.codes = [500] * tries
    problems = notify([hook.address, hook.address], NOTICE)
    assert problems == [f"http://127.0.0.1:{hook.server_port} was not notified: HTTPError, status 500"]
    assert len(hook.got) == 3 + tries + 1, "the second was notified"


def test_a_webhook_that_refuses_is_not_asked_again(hook: Hook, waited: list[float]) -> None:
    hook.codes = [404]
    assert "HTTPError, status 404" in notify([hook.address], NOTICE)[0]
    assert (len(hook.got), waited) == (1, [])


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/secret-path?key=secret",
        "http://user:secret@127.0.0.1:1/x",
        "http://host.invalid:port/secret",
        "http://[secret/x",
        "nonsense://host/secret",
    ],
)
def test_no_part_of_an_address_that_may_be_secret_is_reported(
    address: str, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_WEBHOOK", address)
    problems = notify([address, "env:A_WEBHOOK"], NOTICE)
    assert len(problems) == 2
    assert "secret" not in "".join(problems)


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
        assert "Prefect has no block" in notify(["custom-webhook/none"], NOTICE)[0]
