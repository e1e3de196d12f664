"""Results of runs: what was measured, and whether every promise was kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acms._errors import CheckFailed, RunFailed

if TYPE_CHECKING:
    import os


class Section(Mapping[str, Any]):
    """A part of a result: a read-only mapping whose keys are attributes too."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        return _wrap(self._values[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no {name!r} here; there are: {', '.join(self._values)}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values!r})"

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain dictionaries and lists."""
        return dict(self._values)


class Propagation(Section):
    """How long publications took to reach receivers."""

    def percentile(self, percent: float) -> float | None:
        """Give the time in milliseconds within which this percentage of deliveries was made.

        50, 90, 99, 99.9 and 100 are known; ``None`` where there were too few samples to tell.
        """
        names = {50.0: "p50", 90.0: "p90", 99.0: "p99", 99.9: "p999", 100.0: "max"}
        name = names.get(float(percent))
        if name is None:
            raise ValueError(f"percentiles kept are {', '.join(f'{known:g}' for known in names)}, not {percent:g}")
        value = self["per_receiver_ms"][name]
        return None if value is None else float(value)


class Result(Section):
    """What came of a run: ``result.json`` as attributes."""

    directory: Path
    """Where everything that the run wrote lies: the trace, histograms, ``report.html``."""

    def __init__(self, values: Mapping[str, Any], directory: str | os.PathLike[str]) -> None:
        super().__init__(values)
        self.directory = Path(directory)

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> Result:
        """Read what a run wrote."""
        return cls(json.loads((Path(directory) / "result.json").read_text()), directory)

    @property
    def propagation(self) -> Propagation:
        """How long publications took to reach receivers."""
        return Propagation(self._values["propagation"])

    @property
    def violations(self) -> list[str]:
        """What was not kept or met: one line for each check and each expectation."""
        found = [
            f"{check['name']}: {next(iter(check['violations']), 'it was never put to the test')}"
            for check in self._values["checks"]
            if not check["held"]
        ]
        found += [
            f"{expected['name']} was {expected['was']}, not at most {expected['at_most']}"
            for expected in self._values.get("expectations", [])
            if not expected["met"]
        ]
        return found

    @property
    def held(self) -> bool:
        """Whether every check held and every expectation was met, whatever the measurement is worth."""
        return not self.violations

    @property
    def invalid(self) -> str | None:
        """Why what was measured means nothing, or ``None``: the network was not what it was to be."""
        reason: str | None = self._values.get("invalid")
        if reason is None and not self._values.get("network", {}).get("within_tolerance", True):
            # Results of earlier versions do not say it in words.
            return "the network was not what it was to be"
        return reason

    @property
    def passed(self) -> bool:
        """Whether all is well: :attr:`held`, and not :attr:`invalid`."""
        return self.held and self.invalid is None

    def raise_if_violated(self) -> None:
        """Return if the run :attr:`passed`.

        Raises :class:`CheckFailed`, which names what failed, or :class:`RunFailed` if the measurement is invalid. A
        broken promise is one all the same; whether expectations were met cannot be told then.
        """
        is_broken = any(not check["held"] for check in self._values["checks"])
        if self.invalid is not None and not is_broken:
            raise RunFailed(f"the measurement is invalid: {self.invalid}")
        if violations := self.violations:
            raise CheckFailed("; ".join(violations), self)


def _wrap(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Section(value)
    if isinstance(value, list):
        return [_wrap(one) for one in value]
    return value
