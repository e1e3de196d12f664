"""Scenarios: what a fleet is, what is published, what goes wrong, and what is expected."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from acms import _acms
from acms._aio import in_thread
from acms._result import Result

if TYPE_CHECKING:
    from collections.abc import Mapping


class Scenario:
    """A scenario: a built-in one by its name, or a file. Never changed; :meth:`override` gives another."""

    def __init__(self, source: str, overrides: tuple[tuple[str, Any], ...] = ()) -> None:
        self._source = source
        self._overrides = overrides
        self._text = _acms.resolve_scenario(source, self._settings())

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> Scenario:
        """Read a file, or take the built-in scenario of that name (``quickstart``, ...).

        Raises :class:`ScenarioError` if it is not there or has a key or value that can't be.
        """
        return cls(os.fspath(source))

    def override(self, values: Mapping[str, Any] | None = None, /, **keys: Any) -> Scenario:
        """Give it with other values: ``override(fleet__receivers=10)`` or ``override({"fleet.receivers": 10})``."""
        changed = {**(values or {}), **{key.replace("__", "."): value for key, value in keys.items()}}
        return Scenario(self._source, (*self._overrides, *changed.items()))

    def _settings(self) -> list[tuple[str, str]]:
        return [(key, _toml(value)) for key, value in self._overrides]

    @property
    def toml(self) -> str:
        """All of it, with defaults and overrides, as TOML."""
        return self._text

    def run(
        self,
        backend: str = "local",
        *,
        progress: bool = False,
        seed: int | None = None,
        out: str | os.PathLike[str] | None = None,
    ) -> Result:
        """Run it to the end and return what was measured and found.

        A broken promise or an invalid measurement is no exception here: see :meth:`Result.raise_if_violated`. Raises
        :class:`RunFailed` if it could not be carried out. ``out`` is the directory for what it writes. Ctrl-C ends it
        and leaves nothing behind: the interpreter's exit waits for that.
        """
        return self._run(backend, progress, seed, out, _acms.RawStop())

    def _run(
        self,
        backend: str,
        progress: bool,
        seed: int | None,
        out: str | os.PathLike[str] | None,
        stop: _acms.RawStop,
    ) -> Result:
        settings = [*self._settings(), ("backend", _toml(backend))]
        if seed is not None:
            settings.append(("seed", str(seed)))
        directory = None if out is None else os.fspath(out)
        return Result.read(_acms.run_scenario(self._source, settings, directory, progress, stop))

    async def run_async(
        self,
        backend: str = "local",
        *,
        seed: int | None = None,
        out: str | os.PathLike[str] | None = None,
    ) -> Result:
        """Run it as :meth:`run` does, while the event loop goes on. A cancelled one ends and leaves nothing behind."""
        stop = _acms.RawStop()
        # Results that are complete all the same stay.
        return await in_thread(
            lambda: self._run(backend, False, seed, out, stop), undo=lambda _: None, abandon=stop.request
        )

    def __repr__(self) -> str:
        settings = "".join(f", {key} = {value}" for key, value in self._settings())
        return f"<Scenario {self._source}{settings}>"


def _toml(value: Any) -> str:
    """Write a value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str | os.PathLike):
        # A JSON string without escapes of astral characters is a TOML basic string.
        return json.dumps(os.fspath(value), ensure_ascii=False)
    raise TypeError(f"a scenario has no values of the type {type(value).__name__}")
