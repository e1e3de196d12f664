"""Ctrl-C: seen within 200 ms whatever is under way, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from conftest import children, eventually

BLOCKED = {
    "cluster": "say(); acms.Cluster(storage_points=5)",
    "publish": """
with acms.Cluster(storage_points=3) as cluster:
    cluster.kill(1); cluster.kill(2)
    say()
    cluster.client(3).publish("a", b"")
""",
    "wait_for": """
with acms.Cluster(storage_points=3) as cluster:
    uid = cluster.publish("a", b"").uid
    with cluster.receiver(["b"], into=os.environ["TMPDIR"] + "/into") as receiver:
        say()
        receiver.wait_for(uid, timeout=60)
""",
    "events": """
with acms.Cluster(storage_points=1) as cluster:
    with cluster.receiver(["b"], into=os.environ["TMPDIR"] + "/into") as receiver:
        for event in receiver:
            if event.kind == "ready":
                say()
""",
    "scenario": """
scenario = acms.Scenario.load("smoke").override(duration="30s")
say()
scenario.run()
""",
}
PROGRAM = """
import os, sys, time
import acms

def say():
    print("blocked", flush=True)

def blocked():
{body}

def trace(frame, event, argument):
    # Tells when the exception arises, before any `with` block ends.
    if event == "exception" and argument[0] is KeyboardInterrupt:
        sys.settrace(None)
        print(time.monotonic_ns(), flush=True)
    return trace

sys.settrace(trace)
try:
    blocked()
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("what", BLOCKED)
def test_ctrl_c(what: str, tmp_path: Path) -> None:
    program = PROGRAM.format(body=textwrap.indent(BLOCKED[what], "    "))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    with process, process.stdout as output:
        assert output.readline() == "blocked\n"
        # In the middle of a start: some children are there; of a run: all storage points are.
        assert eventually(lambda: len(children(process.pid)) >= {"cluster": 2, "scenario": 5}.get(what, 1))
        time.sleep(0 if what == "cluster" else 0.3)
        descendants = children(process.pid)
        sent = time.monotonic_ns()
        process.send_signal(signal.SIGINT)
        seen = int(output.readline())
        assert (seen - sent) / 1e6 < 200
        assert process.wait(timeout=10) == 130
    assert descendants
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in descendants))
    assert not list(tmp_path.glob("acms*"))
