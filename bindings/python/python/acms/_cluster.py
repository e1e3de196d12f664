"""A whole small cluster on this machine: real processes, real sockets, real disks."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, Literal, Self

from acms import _acms
from acms._aio import in_thread
from acms._client import AsyncClient, Client, File, Outcome, Publication
from acms._errors import Invalid
from acms._receiver import AsyncReceiver, Receiver

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Cluster:
    """Storage points as processes of this machine, on loopback addresses of their own.

    Their stores lie in ``directory``; without one, in a temporary directory that :meth:`stop` removes. Use it as a
    context manager, or call :meth:`stop`; if this process dies, they do too.
    """

    def __init__(
        self, storage_points: int = 5, directory: str | os.PathLike[str] | None = None, *, publisher: str = "anonymous"
    ) -> None:
        self._raw = _acms.RawCluster(storage_points, None if directory is None else os.fspath(directory))
        self._client = Client(self._raw.urls, publisher=publisher)
        # Also at the interpreter's exit, which does not wait for objects to be collected.
        weakref.finalize(self, self._raw.stop)

    @property
    def urls(self) -> list[str]:
        """What publishers and curl use, in the order of the storage points: ``urls[0]`` is number 1."""
        return self._raw.urls

    @property
    def directory(self) -> Path:
        """Where the stores lie: ``sp1/``, ``sp2/``, ..."""
        return self._raw.directory

    def client(self, *storage_points: int, publisher: str = "anonymous", timeout: float = 10.0) -> Client:
        """Make a client of these storage points, in this order, or of all."""
        unknown = [number for number in storage_points if not 1 <= number <= len(self.urls)]
        if unknown:
            raise Invalid(f"there is no storage point {unknown[0]}, only 1 to {len(self.urls)}")
        urls = [self.urls[number - 1] for number in storage_points] or self.urls
        return Client(urls, publisher=publisher, timeout=timeout)

    def publish(
        self,
        path: str,
        data: bytes | bytearray | memoryview | str | os.PathLike[str],
        *,
        executable: bool = False,
        content_type: str | None = None,
        key: str | None = None,
        known_uid: str | None = None,
        order: Literal["strict", "fast"] | None = None,
    ) -> Publication:
        """As :meth:`Client.publish`, at the first storage point that answers."""
        return self._client.publish(
            path, data, executable=executable, content_type=content_type, key=key, known_uid=known_uid, order=order
        )

    def delete(self, path: str, *, key: str | None = None, known_uid: str | None = None) -> Publication:
        """As :meth:`Client.delete`."""
        return self._client.delete(path, key=key, known_uid=known_uid)

    def get(self, path: str, *, at_least: str | Publication | None = None) -> File:
        """As :meth:`Client.get`."""
        return self._client.get(path, at_least=at_least)

    def outcome(self, uid: str | None = None, *, key: str | None = None) -> Outcome:
        """As :meth:`Client.outcome`."""
        return self._client.outcome(uid, key=key)

    def status(self) -> dict[str, dict[str, Any]]:
        """As :meth:`Client.status`."""
        return self._client.status()

    def receiver(
        self,
        prefixes: str | Iterable[str],
        into: str | os.PathLike[str],
        *,
        id: str | None = None,  # noqa: A002
    ) -> Receiver:
        """Start a receiver that keeps ``into`` equal to the latest agreed files under ``prefixes``."""
        return Receiver(self.urls, prefixes, into, id=id)

    def kill(self, storage_point: int) -> None:
        """Kill a storage point's process at once (SIGKILL). What it acknowledged is on its disk."""
        self._raw.kill(storage_point)

    def restart(self, storage_point: int) -> None:
        """Start a killed storage point again, and return once it serves."""
        self._raw.restart(storage_point)

    def pause(self, storage_point: int) -> None:
        """Stop a storage point's process where it is (SIGSTOP)."""
        self._raw.pause(storage_point)

    def resume(self, storage_point: int) -> None:
        """Let a paused storage point go on."""
        self._raw.resume(storage_point)

    def stop(self) -> None:
        """Stop all storage points, and remove the directory if it was a temporary one."""
        self._raw.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Cluster of {len(self.urls)} storage points in {self._raw.directory}>"


class AsyncCluster:
    """:class:`Cluster` for asyncio: ``async with AsyncCluster() as cluster``."""

    def __init__(
        self, storage_points: int = 5, directory: str | os.PathLike[str] | None = None, *, publisher: str = "anonymous"
    ) -> None:
        self._make = lambda: Cluster(storage_points, directory, publisher=publisher)
        self._cluster: Cluster | None = None

    async def start(self) -> Self:
        """Start it, unless it runs, and return once it serves."""
        if self._cluster is None:
            self._cluster = await in_thread(self._make, undo=Cluster.stop)
        return self

    def _started(self) -> Cluster:
        if self._cluster is None:
            raise Invalid("the cluster is not started: use it with `async with`, or await start()")
        return self._cluster

    @property
    def urls(self) -> list[str]:
        """As :attr:`Cluster.urls`."""
        return self._started().urls

    @property
    def directory(self) -> Path:
        """As :attr:`Cluster.directory`."""
        return self._started().directory

    def client(self, *storage_points: int, publisher: str = "anonymous", timeout: float = 10.0) -> AsyncClient:
        """As :meth:`Cluster.client`."""
        urls = self._started().client(*storage_points).urls
        return AsyncClient(urls, publisher=publisher, timeout=timeout)

    async def publish(
        self,
        path: str,
        data: bytes | bytearray | memoryview | str | os.PathLike[str],
        *,
        executable: bool = False,
        content_type: str | None = None,
        key: str | None = None,
        known_uid: str | None = None,
        order: Literal["strict", "fast"] | None = None,
    ) -> Publication:
        """As :meth:`Cluster.publish`."""
        cluster = self._started()
        return await in_thread(
            lambda: cluster.publish(
                path,
                data,
                executable=executable,
                content_type=content_type,
                key=key,
                known_uid=known_uid,
                order=order,
            )
        )

    async def delete(self, path: str, *, key: str | None = None, known_uid: str | None = None) -> Publication:
        """As :meth:`Cluster.delete`."""
        cluster = self._started()
        return await in_thread(lambda: cluster.delete(path, key=key, known_uid=known_uid))

    async def get(self, path: str, *, at_least: str | Publication | None = None) -> File:
        """As :meth:`Cluster.get`."""
        cluster = self._started()
        return await in_thread(lambda: cluster.get(path, at_least=at_least))

    async def outcome(self, uid: str | None = None, *, key: str | None = None) -> Outcome:
        """As :meth:`Cluster.outcome`."""
        cluster = self._started()
        return await in_thread(lambda: cluster.outcome(uid, key=key))

    async def status(self) -> dict[str, dict[str, Any]]:
        """As :meth:`Cluster.status`."""
        return await in_thread(self._started().status)

    def receiver(
        self,
        prefixes: str | Iterable[str],
        into: str | os.PathLike[str],
        *,
        id: str | None = None,  # noqa: A002
    ) -> AsyncReceiver:
        """As :meth:`Cluster.receiver`; it starts with ``async with``."""
        return AsyncReceiver(self.urls, prefixes, into, id=id)

    async def kill(self, storage_point: int) -> None:
        """As :meth:`Cluster.kill`."""
        cluster = self._started()
        await in_thread(lambda: cluster.kill(storage_point))

    async def restart(self, storage_point: int) -> None:
        """As :meth:`Cluster.restart`."""
        cluster = self._started()
        await in_thread(lambda: cluster.restart(storage_point))

    async def pause(self, storage_point: int) -> None:
        """As :meth:`Cluster.pause`."""
        cluster = self._started()
        await in_thread(lambda: cluster.pause(storage_point))

    async def resume(self, storage_point: int) -> None:
        """As :meth:`Cluster.resume`."""
        cluster = self._started()
        await in_thread(lambda: cluster.resume(storage_point))

    async def stop(self) -> None:
        """As :meth:`Cluster.stop`."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await in_thread(cluster.stop)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
