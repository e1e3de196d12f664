"""What tests share: one cluster, and the rule that nothing stays behind."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import acms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def children(pid: int) -> list[int]:
    """List the processes whose parent is this one, and that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(entry.name))
    return found


def directories() -> set[Path]:
    """List the temporary directories of clusters and runs."""
    return set(Path(tempfile.gettempdir()).glob("acms*"))


def eventually(condition: Callable[[], object], within_s: float = 20.0) -> bool:
    """Wait until it comes true, or tell that it did not. The machine may have other things to do."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(scope="session")
def cluster() -> Iterator[acms.Cluster]:
    """Three storage points."""
    with acms.Cluster(storage_points=3) as cluster:
        yield cluster


@pytest.fixture(scope="session", autouse=True)
def nothing_stays_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No process and no temporary directory outlives the tests."""
    own = tmp_path_factory.mktemp("tmp")
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(own)
    tempfile.tempdir = None
    yield
    assert eventually(lambda: not children(os.getpid())), children(os.getpid())
    assert directories() == set()
    if before is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before
    tempfile.tempdir = None
