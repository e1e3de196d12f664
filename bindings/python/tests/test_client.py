"""Publishing and reading."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import acms


def order(uid: str) -> tuple[int, ...]:
    return tuple(int(part) for part in uid.split("."))


def test_bytes_texts_and_files(cluster: acms.Cluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 300)
    contents: list[tuple[str, bytes | str | memoryview | Path, bytes]] = [
        ("bytes", b"\x00\xff", b"\x00\xff"),
        ("text", "grün", "grün".encode()),
        ("file", source, source.read_bytes()),
        ("empty", b"", b""),
        ("view", memoryview(b"abc")[1:], b"bc"),
    ]
    for name, data, wanted in contents:
        publication = cluster.publish(f"client/{name}", data)
        assert publication.outcome == "accepted"
        for number in (1, 2, 3):
            file = cluster.client(number).get(f"client/{name}", at_least=publication)
            assert file.content == wanted
            assert file.uid == publication.uid
            assert not file.executable


def test_executable_and_type(cluster: acms.Cluster) -> None:
    cluster.publish("client/run", "#!/bin/sh\n", executable=True, content_type="text/x-shellscript")
    file = cluster.get("client/run")
    assert file.executable
    assert file.content_type == "text/x-shellscript"


def test_the_last_wins_and_uids_grow(cluster: acms.Cluster) -> None:
    uids = [cluster.client(1 + i % 3).publish("client/last", str(i)).uid for i in range(6)]
    assert uids == sorted(uids, key=order)
    assert cluster.client(2).get("client/last", at_least=uids[-1]).content == b"5"


def test_delete(cluster: acms.Cluster) -> None:
    cluster.publish("client/gone", b"x")
    deleted = cluster.delete("client/gone")
    with pytest.raises(acms.NotFound):
        cluster.get("client/gone", at_least=deleted)
    with pytest.raises(LookupError):
        cluster.get("client/never")


def test_attempts_under_one_key_are_one_publication(cluster: acms.Cluster) -> None:
    first = cluster.publish("client/key", b"1", key="a key")
    again = cluster.client(2).publish("client/key", b"1", key="a key")
    assert again.uid == first.uid
    assert cluster.outcome(key="a key").uid == first.uid
    with pytest.raises(acms.Rejected) as caught:
        cluster.publish("client/key", b"2", key="a key")
    assert isinstance(caught.value, acms.PublishError)
    assert caught.value.remedy


def test_outcome(cluster: acms.Cluster) -> None:
    publication = cluster.publish("client/outcome", b"1")
    outcome = cluster.outcome(publication.uid)
    assert outcome.outcome == "accepted"
    assert outcome.agreed
    assert outcome.paths == ("client/outcome",)
    assert len(outcome.holders) >= 2
    with pytest.raises(acms.NotFound):
        cluster.outcome("1.1.0")


def test_status(cluster: acms.Cluster) -> None:
    assert list(cluster.status()) == cluster.urls


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    client = acms.Client(url)
    for call in (lambda: client.publish("a", b""), lambda: client.get("a"), lambda: client.delete("a")):
        with pytest.raises(acms.Unreachable, match=r"127\.0\.0\.1"):
            call()


def test_arguments_that_cannot_be(cluster: acms.Cluster) -> None:
    for call in (
        lambda: acms.Client([]),
        lambda: acms.Client("ftp://x"),
        lambda: cluster.publish("../etc/passwd", b""),
        lambda: cluster.publish("a//b", b""),
        lambda: cluster.get(""),
        lambda: cluster.outcome("x"),
        lambda: cluster.publish("a", b"", known_uid="yesterday"),
        lambda: cluster.publish("a", b"", order="loose"),  # type: ignore[arg-type]
    ):
        with pytest.raises(acms.Invalid):
            call()
    with pytest.raises(FileNotFoundError):
        cluster.publish("a", Path("/nowhere"))
