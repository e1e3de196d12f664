"""Receivers."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

import acms

if TYPE_CHECKING:
    from pathlib import Path


def test_files_come_and_go(cluster: acms.Cluster, tmp_path: Path) -> None:
    first = cluster.publish("receiver/a/file", b"1")
    outside = cluster.publish("elsewhere/file", b"x")
    with cluster.receiver(["receiver/a/"], into=tmp_path) as receiver:
        receiver.wait_for(first, timeout=20)
        assert (tmp_path / "receiver/a/file").read_bytes() == b"1"
        second = cluster.publish("receiver/a/file", b"2", executable=True)
        receiver.wait_for(second.uid, timeout=20)
        assert (tmp_path / "receiver/a/file").read_bytes() == b"2"
        assert os.access(tmp_path / "receiver/a/file", os.X_OK)
        receiver.wait_for(cluster.delete("receiver/a/file"), timeout=20)
        assert not (tmp_path / "receiver/a/file").exists()
        with pytest.raises(acms.Timeout, match="elsewhere"):
            receiver.wait_for(outside, timeout=0.2)
    assert not (tmp_path / "elsewhere").exists()


def test_what_was_overtaken_counts_as_there(cluster: acms.Cluster, tmp_path: Path) -> None:
    old = cluster.publish("receiver/b/file", b"old")
    cluster.publish("receiver/b/file", b"new")
    with cluster.receiver("receiver/b", into=tmp_path) as receiver:
        receiver.wait_for(old, timeout=20)
        receiver.wait_for(old.uid, timeout=20)
        assert (tmp_path / "receiver/b/file").read_bytes() == b"new"


def test_events(cluster: acms.Cluster, tmp_path: Path) -> None:
    publication = cluster.publish("receiver/c/file", b"1")
    receiver = cluster.receiver(["receiver/c"], into=tmp_path, id="listener")
    kinds = []
    for event in receiver:
        kinds.append(event.kind)
        if event.kind == "applied":
            assert (event.path, event.uid, event.deleted) == (publication.path, publication.uid, False)
            assert 0 <= time.monotonic_ns() - event.t_ns < 10**10
            receiver.stop()
    assert kinds[0] == "ready"
    assert kinds.index("verified") < kinds.index("applied")
    assert receiver.pid is None


def test_another_goes_on_where_one_ended(cluster: acms.Cluster, tmp_path: Path) -> None:
    first = cluster.publish("receiver/d/file", b"1")
    with cluster.receiver(["receiver/d"], into=tmp_path) as receiver:
        receiver.wait_for(first)
    second = cluster.publish("receiver/d/file", b"2")
    with cluster.receiver(["receiver/d"], into=tmp_path) as receiver:
        receiver.wait_for(second, timeout=20)
        assert (tmp_path / "receiver/d/file").read_bytes() == b"2"


def test_its_death_is_told(cluster: acms.Cluster, tmp_path: Path) -> None:
    uid = cluster.publish("receiver/e/file", b"1").uid
    with cluster.receiver(["nothing/here"], into=tmp_path) as receiver:
        assert receiver.pid is not None
        os.kill(receiver.pid, signal.SIGKILL)
        with pytest.raises(acms.ProcessFailed):
            receiver.wait_for(uid, timeout=20)


def test_what_cannot_start_says_why(cluster: acms.Cluster, tmp_path: Path) -> None:
    with pytest.raises(acms.ProcessFailed, match="segment"):
        cluster.receiver(["../up"], into=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(acms.ProcessFailed, match="file"):
        cluster.receiver(["a"], into=tmp_path / "file")
    with cluster.receiver(["a"], into=tmp_path) as receiver, pytest.raises(acms.Invalid):
        receiver.wait_for("no uid")
