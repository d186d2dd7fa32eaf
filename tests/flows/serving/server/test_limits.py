"""Clients that send too much, too slowly, from elsewhere, or what is no request."""

from __future__ import annotations

import json
import socket
import struct
import zlib
from contextlib import ExitStack

import pytest
from server_process import Served


def talk(served: Served, *sent: bytes, seconds: float = 30.0) -> bytes:
    """What the server answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", served.port), seconds) as connection:
        for one in sent:
            connection.sendall(one)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def head(*lines: str, path: str = "/predict") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says to have so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (1, 60_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(served: Served, width: int, height: int) -> None:
    answer = served.ask("POST", "/predict", bomb(width, height))

    assert answer.status == 413
    assert "is not decoded: too" in answer.document["error"]


def test_an_image_of_too_many_bytes_is_refused(served: Served, picture: bytes) -> None:
    answer = served.ask("POST", "/predict", picture + bytes(100_000))

    assert answer.status == 413
    assert answer.document == {"error": "this has more than 100,000 bytes"}


@pytest.mark.parametrize("length", ["Content-Length: 100000000", "Transfer-Encoding: chunked"])
def test_a_body_of_a_hundred_megabytes_is_refused_before_it_has_arrived(served: Served, length: str) -> None:
    chunk = b"40000\r\n" + bytes(0x40000) + b"\r\n"
    part = chunk * 2 if "chunked" in length else bytes(400_000)
    with socket.create_connection(("127.0.0.1", served.port), 30) as connection:
        connection.sendall(head("Host: localhost", length) + part)
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


def test_a_client_that_sends_all_before_it_reads_still_gets_the_reason(served: Served) -> None:
    assert served.ask("POST", "/predict", bytes(20_000_000)).status == 413


def test_too_many_images_are_refused(served: Served) -> None:
    answer = served.json("/predict", {"images": ["AAAA"] * 5})

    assert (answer.status, answer.document) == (413, {"error": "the request has more than 4 images"})


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "image/png", 400),
        (b"{", "application/json", 400),
        (b"[" * 50_000, "application/json", 400),
        (b'{"image": "AAAA", "images": []}', "application/json", 400),
        (b"[]", "application/json", 400),
        (b"1" * 5000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"text", "text/plain", 415),
        (b"text", "multipart/form-data", 400),
        (b"--a", "multipart/form-data; boundary=a", 400),
        (b"--a\r\n\r\n", "multipart/form-data; boundary=a", 400),
        (b"--a--\r\n", "multipart/form-data; boundary=a", 400),
        (b"--a\r\nx: y\r\n--a--", "multipart/form-data; boundary=a", 400),
        (b"text", "image/png", 422),
    ],
)
def test_what_is_no_request_is_refused_in_one_sentence(served: Served, body: bytes, kind: str, status: int) -> None:
    answer = served.ask("POST", "/predict", body, content_type=kind)

    assert answer.status == status
    assert set(answer.document) == {"error"}
    assert "Traceback" not in answer.document["error"]


def test_compressed_bodies_are_refused(served: Served) -> None:
    assert served.ask("POST", "/predict", b"x", content_encoding="gzip").status == 415


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "localhost", "Origin": "https://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
        ({"Host": "localhost", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "LOCALHOST:1", "Origin": "http://LOCALHOST:1"}, 200),
    ],
)
def test_a_page_of_another_site_cannot_ask(
    served: Served, picture: bytes, headers: dict[str, str], status: int
) -> None:
    answer = served.ask("POST", "/predict", picture, **headers)

    assert answer.status == status
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
def test_malformed_headers_are_refused(served: Served, request_: bytes) -> None:
    assert talk(served, request_).startswith(b"HTTP/1.1 4")


def test_idle_connections_do_not_stop_others(served: Served, picture: bytes) -> None:
    with ExitStack() as held:
        for _ in range(1000):
            held.enter_context(socket.create_connection(("127.0.0.1", served.port), 30))

        assert served.ask("POST", "/predict", picture).status == 200


def test_several_requests_on_one_connection_are_answered_in_order(served: Served, picture: bytes) -> None:
    first = head("Host: localhost", f"Content-Length: {len(picture)}") + picture
    last = head("Host: localhost", "Content-Length: 4", "Connection: close") + b"text"
    answers = talk(served, first + last)

    assert answers.index(b"HTTP/1.1 200") < answers.index(b"HTTP/1.1 422")
    assert json.loads(answers.rpartition(b"\r\n\r\n")[2])["error"].startswith("this is not an image")
