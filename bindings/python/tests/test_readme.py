"""The README's example: in a fresh virtual environment, with the wheel and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[3]


def example() -> str:
    """Read the README's Python code."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    return textwrap.dedent(blocks[0])


def wheel() -> Path:
    """Find what `cargo xtask test` has built."""
    given = os.environ.get("ACMS_WHEEL")
    wheels = [Path(given)] if given else list((ROOT / "target" / "wheels").glob("acms-*.whl"))
    assert wheels, "build the wheel first: cargo xtask test --only python"
    return max(wheels, key=lambda path: path.stat().st_mtime)


def test_the_example_runs(tmp_path: Path) -> None:
    program = example()
    assert len([line for line in program.splitlines() if line.strip()]) <= 10
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", python.parent.parent], check=True)
    install: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "--python",
        python,
        "install",
    ]
    subprocess.run([*install, "--no-index", "--no-deps", wheel()], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["TMPDIR"] = str(tmp_path)
    run = subprocess.run(
        [python, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert "origin" in run.stdout
    assert not list(tmp_path.glob("acms*"))
