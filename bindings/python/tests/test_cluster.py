"""Clusters on this machine."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

import acms
from conftest import children, directories, eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_it_survives_its_minority_and_stops_without_a_quorum() -> None:
    with acms.Cluster(storage_points=5) as cluster:
        first = cluster.publish("cluster/file", b"before")
        for number in (1, 2):
            cluster.kill(number)
        second = cluster.publish("cluster/file", b"with three")
        assert cluster.client(4).get("cluster/file", at_least=second).content == b"with three"
        cluster.kill(3)
        begun = time.monotonic()
        with pytest.raises((acms.Rejected, acms.Undetermined)) as caught:
            cluster.client(4, timeout=20).publish("cluster/other", b"with two")
        # The storage point gives up, not the client.
        assert time.monotonic() - begun < 20
        assert str(caught.value)
        assert cluster.client(5).get("cluster/file").uid == second.uid != first.uid
        for number in (1, 2, 3):
            cluster.restart(number)
        third = cluster.publish("cluster/file", b"again")
        assert cluster.client(1).get("cluster/file", at_least=third).content == b"again"


def test_pause_and_resume() -> None:
    with acms.Cluster(storage_points=3) as cluster:
        cluster.pause(2)
        publication = cluster.publish("cluster/file", b"1")
        cluster.resume(2)
        assert cluster.client(2).get("cluster/file", at_least=publication).content == b"1"


def test_urls_are_for_any_client(cluster: acms.Cluster) -> None:
    request = urllib.request.Request(f"{cluster.urls[1]}/v1/config/cluster/any", data=b"by anyone", method="PUT")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201
        uid = answer.headers["ACMS-UID"]
    assert cluster.get("cluster/any", at_least=uid).content == b"by anyone"


def test_a_directory_is_kept_and_a_temporary_one_removed(tmp_path: Path) -> None:
    with acms.Cluster(storage_points=1, directory=tmp_path / "kept") as cluster:
        assert cluster.directory == tmp_path / "kept"
        cluster.publish("a", b"a")
    assert (tmp_path / "kept" / "sp1" / "store").is_dir()
    before = directories()
    with acms.Cluster(storage_points=1) as cluster:
        assert directories() - before == {cluster.directory}
    assert directories() == before


def test_stopped_means_stopped() -> None:
    before = set(children(os.getpid()))
    cluster = acms.Cluster(storage_points=3)
    assert len(set(children(os.getpid())) - before) == 3
    cluster.stop()
    cluster.stop()
    assert set(children(os.getpid())) == before
    with pytest.raises(acms.ProcessFailed):
        cluster.kill(1)
    with pytest.raises(acms.Unreachable):
        cluster.publish("a", b"")


def test_a_forgotten_one_is_stopped() -> None:
    before = set(children(os.getpid()))
    cluster = acms.Cluster(storage_points=1)
    del cluster
    assert eventually(lambda: set(children(os.getpid())) == before)


def test_there_is_no_such_storage_point(cluster: acms.Cluster) -> None:
    with pytest.raises(acms.Invalid):
        cluster.kill(4)
    with pytest.raises(acms.Invalid):
        cluster.client(0)


def test_other_threads_go_on_meanwhile() -> None:
    counted, stop = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.wait(0.001):
            counted += 1

    counter = threading.Thread(target=count)
    counter.start()
    begun = time.monotonic()
    with acms.Cluster(storage_points=3) as cluster:
        cluster.publish("a", b"")
    elapsed = time.monotonic() - begun
    stop.set()
    counter.join()
    assert counted > elapsed * 1000 / 10
