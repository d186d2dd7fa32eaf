"""Addresses without the secrets that they may carry: for logs, tags and errors."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

_USER = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/'\"?#]*@")


def without_secrets(address: str) -> str:
    """The address of a repository or a remote without password, query and fragment, over HTTP also without user.

    An address without a scheme, such as a folder or `git@host:path`, stays as it is.
    """
    if "://" not in address:
        return address
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018  (it is read, or there is none that can be)
        user = parts.username if parts.scheme not in ("http", "https") else None
    except ValueError:  # the host cannot be read, so anything may be secret
        return address.split("://")[0] + "://..."
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"{user}@{host}" if user else host, parts.path, "", ""))


def host_of(address: str) -> str:
    """Scheme, host and port of an address: the part of a webhook that is not secret."""
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018
    except ValueError:
        return address.split("://")[0] + "://..."
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def redacted(text: str) -> str:
    """A message in which no address has a user or a password."""
    return _USER.sub(r"\1", text)
