"""Blocking calls from asyncio: each on a thread of its own, while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def in_thread(
    call: Callable[[], T],
    *,
    undo: Callable[[T], object] | None = None,
    abandon: Callable[[], object] | None = None,
) -> T:
    """Await a blocking call.

    If the awaiting task is cancelled or given up, ``abandon`` is called so that the call ends soon, and what the call
    made all the same is given to ``undo``; the interpreter does not exit before that is done.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def undo_beside(result: T) -> None:
        if undo is not None:
            threading.Thread(target=undo, args=(result,), name="acms undo").start()

    def succeed(result: T) -> None:
        if done.cancelled():
            undo_beside(result)
        else:
            done.set_result(result)

    def fail(error: BaseException) -> None:
        if not done.cancelled():
            done.set_exception(error)

    def work() -> None:
        try:
            result = call()
        except BaseException as error:
            deliver(partial(fail, error))
        else:
            if not deliver(partial(succeed, result)):
                undo_beside(result)

    def deliver(settle: Callable[[], object]) -> bool:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle)
            return True
        return False

    threading.Thread(target=work, name="acms call", daemon=undo is None).start()
    try:
        return await done
    except (asyncio.CancelledError, GeneratorExit):
        if abandon is not None:
            abandon()
        if done.done() and not done.cancelled() and done.exception() is None:
            undo_beside(done.result())
        raise
