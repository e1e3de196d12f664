"""The one tree of exceptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acms._result import Result


class AcmsError(Exception):
    """What everything that this package raises on purpose is."""

    remedy: str | None
    """What to do about it, if that is known."""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message if not remedy else f"{message}; {remedy}")
        self.remedy = remedy


class Unreachable(AcmsError, ConnectionError):
    """No storage point answered. Nothing was published."""


class Timeout(AcmsError, TimeoutError):
    """It did not happen in the time given."""


class NotFound(AcmsError, LookupError):
    """No agreed file has this path, or no publication this name."""


class Invalid(AcmsError, ValueError):
    """An argument that can't be: a path, a UID, a prefix."""


class Refused(AcmsError):
    """A storage point declined to answer."""


class PublishError(AcmsError):
    """A publication was not accepted."""

    uid: str | None
    """Its name, if it got one."""

    def __init__(self, message: str, remedy: str | None = None, uid: str | None = None) -> None:
        super().__init__(message, remedy)
        self.uid = uid


class Rejected(PublishError):
    """It will never be agreed."""


class Undetermined(PublishError):
    """It could not be told in time: it may still become agreed, or be superseded.

    ``Client.outcome(uid)`` tells more later; publishing again under the same ``key`` finds what became of it.
    """

    superseded_by: str | None
    """A newer agreed publication of its path, if that is why."""

    def __init__(
        self, message: str, remedy: str | None = None, uid: str | None = None, superseded_by: str | None = None
    ) -> None:
        super().__init__(message, remedy, uid)
        self.superseded_by = superseded_by


class ProcessFailed(AcmsError):
    """A storage point or receiver could not start or ended by itself."""


class ScenarioError(AcmsError, ValueError):
    """A scenario that can't be read or has a wrong key or value."""


class RunFailed(AcmsError):
    """A run could not be carried out, or its measurement is invalid (:attr:`Result.invalid`)."""


class CheckFailed(AcmsError, AssertionError):
    """A run broke a promise or missed what the scenario expects of it."""

    result: Result
    """What was measured and found."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result
