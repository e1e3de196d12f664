"""Publish configuration files to storage points that agree on them and keep them, and receive them anywhere.

    with acms.Cluster(storage_points=5) as cluster:
        uid = cluster.publish("edge/routes.json", data).uid
        with cluster.receiver(["edge/"], into=directory) as receiver:
            receiver.wait_for(uid, timeout=5)

What is named here is loaded when it is first used: the children that run storage points and receivers start with
``python -m acms`` and need none of it.
"""

from acms._acms import __version__

# As type checkers know it; importing typing would take a child half of its time to start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from acms._client import AsyncClient, Client, File, Outcome, Publication
    from acms._cluster import AsyncCluster, Cluster
    from acms._errors import (
        AcmsError,
        CheckFailed,
        Invalid,
        NotFound,
        ProcessFailed,
        PublishError,
        Refused,
        Rejected,
        RunFailed,
        ScenarioError,
        Timeout,
        Undetermined,
        Unreachable,
    )
    from acms._receiver import AsyncReceiver, Event, Receiver
    from acms._result import Propagation, Result, Section
    from acms._scenario import Scenario

_MODULES = {
    "_client": ("AsyncClient", "Client", "File", "Outcome", "Publication"),
    "_cluster": ("AsyncCluster", "Cluster"),
    "_errors": (
        "AcmsError",
        "CheckFailed",
        "Invalid",
        "NotFound",
        "ProcessFailed",
        "PublishError",
        "Refused",
        "Rejected",
        "RunFailed",
        "ScenarioError",
        "Timeout",
        "Undetermined",
        "Unreachable",
    ),
    "_receiver": ("AsyncReceiver", "Event", "Receiver"),
    "_result": ("Propagation", "Result", "Section"),
    "_scenario": ("Scenario",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AcmsError",
    "AsyncClient",
    "AsyncCluster",
    "AsyncReceiver",
    "CheckFailed",
    "Client",
    "Cluster",
    "Event",
    "File",
    "Invalid",
    "NotFound",
    "Outcome",
    "ProcessFailed",
    "Propagation",
    "Publication",
    "PublishError",
    "Receiver",
    "Refused",
    "Rejected",
    "Result",
    "RunFailed",
    "Scenario",
    "ScenarioError",
    "Section",
    "Timeout",
    "Undetermined",
    "Unreachable",
    "__version__",
]


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'acms' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"acms.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
