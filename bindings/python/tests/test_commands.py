"""The command lines that come with the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import acms

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        [BIN / "acms"],
        [sys.executable, "-m", "acms"],
        [BIN / "acms-testbed"],
        [sys.executable, "-m", "acms.testbed"],
    ],
    ids=lambda command: " ".join(str(part) for part in command[1:]) or command[0].name,
)
def test_version_and_wrong_usage(command: list[str]) -> None:
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert acms.__version__ in version.stdout
    wrong = subprocess.run([*command, "no-such-command"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "no-such-command" in wrong.stderr


def test_children_load_only_the_extension() -> None:
    script = "import sys, acms.__main__; print(*(name for name in sys.modules if name.partition('.')[0] in LOOKED_AT))"
    script = script.replace("LOOKED_AT", "('acms', 'asyncio', 'json', 'subprocess', 'threading', 'typing')")
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert sorted(modules.split()) == ["acms", "acms.__main__", "acms._acms"]


def test_a_directory_called_acms_is_not_mistaken_for_it(
    cluster: acms.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acms").mkdir()
    (tmp_path / "acms" / "__main__.py").write_text("raise SystemExit('mistaken')")
    monkeypatch.chdir(tmp_path)
    publication = cluster.publish("commands/file", b"")
    with cluster.receiver(["commands"], into="into") as receiver:
        receiver.wait_for(publication, timeout=20)


def test_the_command_line_publishes(cluster: acms.Cluster, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from a command line")
    command: list[str | Path] = [BIN / "acms", "publish", "--to", cluster.urls[0]]
    command += ["commands/published", tmp_path / "file"]
    subprocess.run(command, check=True, capture_output=True)
    assert cluster.get("commands/published").content == b"from a command line"
