"""Addresses lose their secrets, whatever they look like."""

from __future__ import annotations

import pytest

from graft.tasks.addresses import host_of, redacted, without_secrets


@pytest.mark.parametrize(
    ("address", "bare"),
    [
        ("https://user:p@ss@host/team/project.git", "https://host/team/project.git"),
        ("https://token@host:8443/project?private_token=secret#x", "https://host:8443/project"),
        ("ssh://git:secret@host:2222/project.git", "ssh://git@host:2222/project.git"),
        ("ssh://git@host/project.git", "ssh://git@host/project.git"),
        ("ssh://host/project.git", "ssh://host/project.git"),
        ("s3://key:secret@bucket/folder", "s3://key@bucket/folder"),
        ("git@host:team/project.git", "git@host:team/project.git"),
        ("../remote.git", "../remote.git"),
        ("", ""),
        ("https://user:p/secret@host/x", "https://..."),
        ("http://[secret/x", "http://..."),
    ],
)
def test_an_address_keeps_what_is_no_secret(address: str, bare: str) -> None:
    assert without_secrets(address) == bare


def test_of_a_webhook_only_the_host_is_named() -> None:
    assert host_of("https://user:p@ss@hooks.example.org/services/secret?key=secret") == "https://hooks.example.org"


def test_a_message_loses_users_and_passwords() -> None:
    said = "fatal: unable to access 'https://user:p@ss@host/x': no; postgresql://graft:secret@db:5432/mlflow; a@b"
    assert redacted(said) == "fatal: unable to access 'https://host/x': no; postgresql://db:5432/mlflow; a@b"
