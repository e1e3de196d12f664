"""Receivers: processes that keep a directory equal to the latest agreed publications."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from acms._aio import in_thread
from acms._client import Client, Publication
from acms._errors import Invalid, NotFound, ProcessFailed, Timeout, Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping

START_S = 30.0
STOP_S = 5.0
LOOK_UP_AGAIN_S = 0.2
EVENTS_KEPT = 65_536


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a receiver did."""

    kind: str
    """``ready``, ``source``, ``verified``, ``applied``, ``blocked``, ``error``, ``current``, ``stopping``."""
    t_ns: int
    """When, by this machine's monotonic clock (``time.monotonic_ns``)."""
    path: str | None = None
    uid: str | None = None
    hash: str | None = None
    deleted: bool = False
    cause: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """All of it, as written."""

    @classmethod
    def _parse(cls, line: bytes) -> Event:
        fields: dict[str, Any] = json.loads(line)
        known = {name: fields[name] for name in ("path", "uid", "hash", "cause") if name in fields}
        return cls(fields["kind"], fields["t"], deleted=bool(fields.get("deleted")), fields=fields, **known)


class _Abandoned(Exception):
    """Nobody waits any more."""


class Receiver:
    """Keeps the directory ``into`` equal to the latest agreed files under ``prefixes``.

    It is a process of its own, so it goes on while Python is busy. Use it as a context manager, or call :meth:`stop`.
    Iterating it gives its events, from the first one on (the last 65,536 are kept), and ends when it has stopped.
    """

    into: Path
    """The directory."""

    def __init__(
        self,
        sources: str | Iterable[str],
        prefixes: str | Iterable[str],
        into: str | os.PathLike[str],
        *,
        id: str | None = None,  # noqa: A002
    ) -> None:
        self.into = Path(into)
        self._sources = [sources] if isinstance(sources, str) else list(sources)
        subscribed = [prefixes] if isinstance(prefixes, str) else list(prefixes)
        # -P: a directory named acms where the program happens to run is not the package.
        command = [sys.executable, "-P", "-m", "acms", "receive", "--exit-with-parent", "--events", "-"]
        for source in self._sources:
            command += ["--source", source]
        for prefix in subscribed:
            command += ["--subscribe", prefix]
        command += ["--into", os.fspath(self.into)]
        if id is not None:
            command += ["--id", id]

        self._changed = threading.Condition()
        self._events: collections.deque[Event] = collections.deque(maxlen=EVENTS_KEPT)
        self._applied: dict[str, tuple[int, ...]] = {}
        self._blocked: dict[str, str] = {}
        self._ready = False
        self._ended: str | None = None
        self._errors: collections.deque[str] = collections.deque(maxlen=20)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        # The thread that starts the process outlives it: for --exit-with-parent, the parent is that thread.
        self._thread = threading.Thread(target=self._run, args=(command,), name="acms receiver", daemon=True)
        self._thread.start()
        try:
            self._wait(lambda: self._ready, START_S, lambda: "the receiver did not start", None)
        except BaseException:
            self.stop()
            raise

    def wait_for(self, publication: Publication | str, timeout: float = 30.0) -> None:
        """Return once the publication's files, or newer ones of their paths, are in ``into``.

        ``publication`` is what ``publish`` returned, or its UID. Raises :class:`Timeout`, or :class:`ProcessFailed` if
        the receiver has ended.
        """
        self._wait_for(publication, timeout, None)

    def _wait_for(self, publication: Publication | str, timeout: float, abandoned: threading.Event | None) -> None:
        deadline = time.monotonic() + timeout
        uid = publication.uid if isinstance(publication, Publication) else publication
        wanted = _order(uid)
        paths: tuple[str, ...] = (publication.path,) if isinstance(publication, Publication) else ()

        def there() -> bool:
            if paths:
                return all(self._applied.get(path, ()) >= wanted for path in paths)
            return wanted in self._applied.values()

        def why() -> str:
            what = f"{uid} ({', '.join(paths)})" if paths else uid
            blocked = [f"; {path} is blocked: {self._blocked[path]}" for path in paths if path in self._blocked]
            return f"{what} is not in {self.into} after {timeout:g} s{''.join(blocked)}"

        # By the UID alone one cannot see that it was overtaken: then its paths are asked for.
        while not paths:
            left = deadline - time.monotonic()
            if self._wait(there, min(left, LOOK_UP_AGAIN_S), why if left <= LOOK_UP_AGAIN_S else None, abandoned):
                return
            paths = self._paths(uid, max(deadline - time.monotonic(), LOOK_UP_AGAIN_S))
        self._wait(there, deadline - time.monotonic(), why, abandoned)

    def _paths(self, uid: str, timeout: float) -> tuple[str, ...]:
        """Ask the sources for the paths of a publication."""
        try:
            return Client(self._sources, timeout=timeout).outcome(uid).paths
        except (NotFound, Timeout, Unreachable):
            return ()

    def _wait(
        self,
        condition: Callable[[], object],
        timeout: float,
        message: Callable[[], str] | None,
        abandoned: threading.Event | None,
    ) -> bool:
        """Wait for a condition; without a message for the exception, tell whether it holds."""

        def over() -> object:
            return condition() or self._ended is not None or (abandoned is not None and abandoned.is_set())

        with self._changed:
            self._changed.wait_for(over, max(timeout, 0.0))
            if condition():
                return True
            if abandoned is not None and abandoned.is_set():
                raise _Abandoned
            if self._ended is not None:
                raise ProcessFailed(f"the receiver has ended: {self._ended}")
            if message is None:
                return False
            raise Timeout(message())

    def _run(self, command: list[str]) -> None:
        """Start the process and take its events until it has ended."""
        ended = "its events could not be read"
        try:
            ended = self._follow(command)
        except OSError as error:
            ended = str(error)
        finally:
            with self._changed:
                self._ended = ended
                self._changed.notify_all()

    def _follow(self, command: list[str]) -> str:
        pipe = subprocess.PIPE
        # A session of its own: Ctrl-C reaches this process alone, which then stops the receiver.
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            with self._changed:
                self._process = process
                if self._stopping:
                    process.kill()
            errors = threading.Thread(target=self._keep_errors, args=(process.stderr,), daemon=True)
            errors.start()
            try:
                for line in process.stdout:
                    if line.endswith(b"\n"):
                        self._take(Event._parse(line))
            except BaseException:
                process.kill()
                raise
            code = process.wait()
            errors.join()
            return "; ".join(self._errors) or f"exit code {code}"

    def _keep_errors(self, lines: IO[bytes]) -> None:
        for line in lines:
            self._errors.append(line.decode(errors="replace").rstrip())

    def _take(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            if event.kind == "ready":
                self._ready = True
            elif event.kind == "applied" and event.path is not None and event.uid is not None:
                self._applied[event.path] = _order(event.uid)
                self._blocked.pop(event.path, None)
            elif event.kind == "blocked" and event.path is not None:
                self._blocked[event.path] = event.cause or "for an unknown reason"
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Event]:
        """Give events as they happen, until it has stopped."""
        while (event := self._next(None)) is not None:
            yield event

    def _next(self, abandoned: threading.Event | None) -> Event | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._events or self._ended is not None or (abandoned is not None and abandoned.is_set())
            )
            return self._events.popleft() if self._events else None

    def _put_back(self, event: Event | None) -> None:
        if event is not None:
            with self._changed:
                self._events.appendleft(event)
                self._changed.notify_all()

    def _abandon(self, abandoned: threading.Event) -> None:
        with self._changed:
            abandoned.set()
            self._changed.notify_all()

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        process = self._process
        return process.pid if process is not None and self._ended is None else None

    def stop(self) -> None:
        """Stop it and wait until it has ended. What is in ``into`` stays; another receiver may go on from there."""
        with self._changed:
            self._stopping = True
            process = self._process
        try:
            if process is not None and process.poll() is None:
                process.terminate()
            self._thread.join(STOP_S)
        finally:
            if process is not None and process.poll() is None:
                process.kill()
            self._thread.join(STOP_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"process {self.pid}" if self.pid is not None else "stopped"
        return f"<Receiver into {self.into}, {state}>"


class AsyncReceiver:
    """:class:`Receiver` for asyncio: ``async with AsyncReceiver(...) as receiver``."""

    def __init__(
        self,
        sources: str | Iterable[str],
        prefixes: str | Iterable[str],
        into: str | os.PathLike[str],
        *,
        id: str | None = None,  # noqa: A002
    ) -> None:
        self.into = Path(into)
        self._make = lambda: Receiver(sources, prefixes, into, id=id)
        self._receiver: Receiver | None = None

    async def start(self) -> Self:
        """Start it, unless it runs, and return once it does."""
        if self._receiver is None:
            self._receiver = await in_thread(self._make, undo=Receiver.stop)
        return self

    def _started(self) -> Receiver:
        if self._receiver is None:
            raise Invalid("the receiver is not started: use it with `async with`, or await start()")
        return self._receiver

    async def wait_for(self, publication: Publication | str, timeout: float = 30.0) -> None:
        """As :meth:`Receiver.wait_for`."""
        receiver, abandoned = self._started(), threading.Event()
        await in_thread(
            lambda: receiver._wait_for(publication, timeout, abandoned), abandon=lambda: receiver._abandon(abandoned)
        )

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Give events as they happen, until it has stopped."""
        receiver = self._started()
        while True:
            abandoned = threading.Event()
            event = await in_thread(
                lambda gone=abandoned: receiver._next(gone),  # type: ignore[misc]
                undo=receiver._put_back,
                abandon=lambda gone=abandoned: receiver._abandon(gone),  # type: ignore[misc]
            )
            if event is None:
                return
            yield event

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return None if self._receiver is None else self._receiver.pid

    async def stop(self) -> None:
        """As :meth:`Receiver.stop`."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            await in_thread(receiver.stop)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _order(uid: str) -> tuple[int, ...]:
    """Give what compares as UIDs do."""
    parts = uid.split(".")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise Invalid(f"{uid!r} is no UID of the form <microseconds>.<storage point>.<store>")
    return tuple(int(part) for part in parts)
