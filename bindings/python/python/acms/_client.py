"""Publishing and reading over HTTP."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from acms import _acms
from acms._aio import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Publication:
    """An accepted publication: a quorum of storage points holds it on stable storage."""

    uid: str
    """Its name, ``<microseconds>.<storage point>.<store>``; a later publication of the path has a greater one."""
    path: str
    outcome: Literal["accepted"] = "accepted"


@dataclass(frozen=True, slots=True)
class File:
    """The latest agreed publication of a path, as a storage point knows it."""

    path: str
    uid: str
    content: bytes
    content_type: str
    executable: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a publication."""

    outcome: Literal["accepted", "rejected", "undetermined"]
    uid: str | None
    paths: tuple[str, ...]
    agreed: bool
    holders: tuple[int, ...]
    """The storage points known to hold it on stable storage."""
    superseded_by: str | None
    reason: str | None


class Client:
    """Publishes to and reads from storage points, by their URLs: the first that answers is used.

    ``publisher`` names who publishes; ``timeout`` bounds every call, in seconds. At ``https://`` URLs, servers must be
    certified by an authority in the file ``ca`` (default: by one that this system trusts). Who may publish shows a
    certificate (the files ``cert`` and ``key``) or a ``token``, and publishes under the name that these have.
    """

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        publisher: str = "anonymous",
        timeout: float = TIMEOUT_S,
        ca: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        token: str | None = None,
    ) -> None:
        urls = [urls] if isinstance(urls, str) else list(urls)
        files = [None if file is None else Path(file) for file in (ca, cert, key)]
        self._raw = _acms.RawClient(urls, publisher, timeout, files[0], files[1], files[2], token)

    @property
    def urls(self) -> list[str]:
        """The storage points."""
        return self._raw.urls

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
        """Publish bytes, a text (as UTF-8) or the file that a ``Path`` names, and return once it is accepted.

        Attempts under one ``key`` are one publication. ``known_uid`` is the greatest UID that the publisher knows; the
        new one will be greater. Raises :class:`Rejected`, :class:`Undetermined` or :class:`Unreachable`.
        """
        uid = self._raw.publish(path, _content(data), executable, content_type, key, known_uid, order)
        return Publication(uid, path)

    def delete(self, path: str, *, key: str | None = None, known_uid: str | None = None) -> Publication:
        """Publish the deletion of a path: receivers remove the file. Returns and raises as :meth:`publish`."""
        return Publication(self._raw.delete(path, key, known_uid), path)

    def get(self, path: str, *, at_least: str | Publication | None = None) -> File:
        """Read the latest agreed file of a path, as the storage point that answers knows it.

        ``at_least`` waits until that storage point knows the publication, or a newer one: what was published at one is
        read at another. Raises :class:`NotFound`.
        """
        uid = at_least.uid if isinstance(at_least, Publication) else at_least
        return File(path, *self._raw.get(path, uid))

    def outcome(self, uid: str | None = None, *, key: str | None = None) -> Outcome:
        """Tell what became of a publication, by its UID or by the key of its attempts. Raises :class:`NotFound`."""
        if (uid is None) == (key is None):
            raise TypeError("give either uid or key")
        return Outcome(*self._raw.outcome(uid, key))

    def status(self) -> dict[str, dict[str, Any]]:
        """Tell how each storage point that answers is, by URL."""
        import json

        return {url: json.loads(text) for url, text in self._raw.status()}

    def __repr__(self) -> str:
        return f"Client({self.urls!r})"


class AsyncClient:
    """:class:`Client` for asyncio. A cancelled publication is *undetermined*: it may still become agreed."""

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        publisher: str = "anonymous",
        timeout: float = TIMEOUT_S,
        ca: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        token: str | None = None,
    ) -> None:
        self._client = Client(urls, publisher=publisher, timeout=timeout, ca=ca, cert=cert, key=key, token=token)

    @property
    def urls(self) -> list[str]:
        """The storage points."""
        return self._client.urls

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
        """As :meth:`Client.publish`."""
        return await in_thread(
            lambda: self._client.publish(
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
        """As :meth:`Client.delete`."""
        return await in_thread(lambda: self._client.delete(path, key=key, known_uid=known_uid))

    async def get(self, path: str, *, at_least: str | Publication | None = None) -> File:
        """As :meth:`Client.get`."""
        return await in_thread(lambda: self._client.get(path, at_least=at_least))

    async def outcome(self, uid: str | None = None, *, key: str | None = None) -> Outcome:
        """As :meth:`Client.outcome`."""
        return await in_thread(lambda: self._client.outcome(uid, key=key))

    async def status(self) -> dict[str, dict[str, Any]]:
        """As :meth:`Client.status`."""
        return await in_thread(self._client.status)

    def __repr__(self) -> str:
        return f"AsyncClient({self.urls!r})"


def _content(data: bytes | bytearray | memoryview | str | os.PathLike[str]) -> bytes | Path:
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, os.PathLike):
        # Opened here, so that a file that cannot be read is the usual OSError; sent as it is read.
        with Path(data).open("rb"):
            return Path(data)
    return bytes(data)
