"""The extension module; what people use is re-exported by :mod:`acms`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, final

__all__ = [
    "RawClient",
    "RawCluster",
    "RawStop",
    "__version__",
    "main",
    "resolve_scenario",
    "run_scenario",
    "testbed_main",
]

__version__: str

def main(arguments: Sequence[str]) -> int: ...
def testbed_main(arguments: Sequence[str]) -> int: ...
def resolve_scenario(source: str, settings: Sequence[tuple[str, str]]) -> str: ...
def run_scenario(
    source: str, settings: Sequence[tuple[str, str]], out: str | None, progress: bool, stop: RawStop
) -> Path: ...

@final
class RawClient:
    def __new__(
        cls,
        urls: Sequence[str],
        publisher: str,
        timeout: float,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        token: str | None,
    ) -> RawClient: ...
    @property
    def urls(self) -> list[str]: ...
    def publish(
        self,
        path: str,
        content: bytes | Path,
        executable: bool,
        content_type: str | None,
        key: str | None,
        known_uid: str | None,
        order: str | None,
    ) -> str: ...
    def delete(self, path: str, key: str | None, known_uid: str | None) -> str: ...
    def get(self, path: str, at_least: str | None) -> tuple[str, bytes, str, bool]: ...
    def outcome(
        self, uid: str | None, key: str | None
    ) -> tuple[
        Literal["accepted", "rejected", "undetermined"],
        str | None,
        tuple[str, ...],
        bool,
        tuple[int, ...],
        str | None,
        str | None,
    ]: ...
    def status(self) -> list[tuple[str, str]]: ...

@final
class RawCluster:
    def __new__(cls, storage_points: int, directory: str | None) -> RawCluster: ...
    @property
    def urls(self) -> list[str]: ...
    @property
    def directory(self) -> Path: ...
    def kill(self, storage_point: int) -> None: ...
    def restart(self, storage_point: int) -> None: ...
    def pause(self, storage_point: int) -> None: ...
    def resume(self, storage_point: int) -> None: ...
    def stop(self) -> None: ...

@final
class RawStop:
    def __new__(cls) -> RawStop: ...
    def request(self) -> None: ...
