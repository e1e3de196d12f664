"""Scenarios and their results."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest

import acms
from conftest import children, directories

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> acms.Result:
    before = set(children(os.getpid())), directories()
    scenario = acms.Scenario.load("smoke").override(fleet__receivers=4, seed=7)
    result = scenario.run(out=tmp_path_factory.mktemp("run"))
    assert (set(children(os.getpid())), directories()) == before
    return result


def test_a_run(result: acms.Result) -> None:
    result.raise_if_violated()
    assert result.held
    assert result.seed == 7
    assert result.hosts.receivers == 4
    assert result["publish"]["accepted"] == result.publish.accepted > 0
    assert result.propagation.deliveries_made == result.propagation.deliveries_expected
    assert {check.name for check in result.checks} >= {"P1", "P3", "P4", "P5", "P6", "P8"}
    assert all(check.held and check.events > 0 for check in result.checks)
    p50, p100 = result.propagation.percentile(50), result.propagation.percentile(100)
    assert p50 is not None
    assert p100 is not None
    assert 0 < p50 <= p100
    with pytest.raises(ValueError, match="percentiles"):
        result.propagation.percentile(42)
    with pytest.raises(AttributeError, match="propagation"):
        _ = result.propagatoin
    assert json.loads((result.directory / "result.json").read_text()) == result.to_dict()
    assert acms.Result.read(result.directory).to_dict() == result.to_dict()


def test_what_failed_is_named(result: acms.Result, tmp_path: Path) -> None:
    values = result.to_dict()
    values["checks"] = [{"name": "P4", "held": False, "events": 3, "violations": ["receiver3 went back"]}]
    (tmp_path / "result.json").write_text(json.dumps(values))
    broken = acms.Result.read(tmp_path)
    assert not broken.held
    with pytest.raises(acms.CheckFailed, match="P4: receiver3 went back") as caught:
        broken.raise_if_violated()
    assert caught.value.result is broken


def test_an_invalid_measurement_does_not_pass(result: acms.Result) -> None:
    assert result.passed
    assert result.invalid is None
    values = result.to_dict()
    invalid = {**values, "invalid": "the network was slow"}
    of_before = {**values, "network": {**values["network"], "within_tolerance": False}}
    del of_before["invalid"]
    for found, why in ((invalid, "the network was slow"), (of_before, "the network was not")):
        judged = acms.Result(found, result.directory)
        assert judged.held
        assert not judged.passed
        with pytest.raises(acms.RunFailed, match=why):
            judged.raise_if_violated()
    missed = {"name": "longest_gap_ms", "at_most": 1.0, "was": 2.0, "met": False}
    with pytest.raises(acms.RunFailed):
        acms.Result({**invalid, "expectations": [missed]}, result.directory).raise_if_violated()
    broken = {"name": "P4", "held": False, "events": 3, "violations": ["receiver3 went back"]}
    with pytest.raises(acms.CheckFailed, match="P4"):
        acms.Result({**invalid, "checks": [broken]}, result.directory).raise_if_violated()


def test_an_expectation_that_is_not_met(tmp_path: Path) -> None:
    scenario = acms.Scenario.load("smoke").override({"expect.convergence_99_ms_p99": 0.001})
    result = asyncio.run(scenario.run_async(out=tmp_path))
    assert not result.held
    with pytest.raises(acms.CheckFailed, match="convergence_99_ms_p99"):
        result.raise_if_violated()


def test_overrides(tmp_path: Path) -> None:
    scenario = acms.Scenario.load("quickstart")
    changed = scenario.override(fleet__receivers=10).override(
        {"workload.tree": tmp_path, "fleet.subscribe": ["a", "b"]}
    )
    assert "receivers = 10" in changed.toml
    assert str(tmp_path) in changed.toml
    assert "receivers = 100" in scenario.toml
    (tmp_path / "own.toml").write_text('name = "own"\n[fleet]\nreceivers = 3\n')
    assert "receivers = 3" in acms.Scenario.load(tmp_path / "own.toml").toml


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(acms.ScenarioError, match="quickstart"):
        acms.Scenario.load("quickstrat")
    with pytest.raises(acms.ScenarioError, match="receivers"):
        acms.Scenario.load("smoke").override(fleet__recievers=1)
    with pytest.raises(acms.ScenarioError, match="docker"):
        acms.Scenario.load("smoke").run(backend="dockr")
    (tmp_path / "file").touch()
    with pytest.raises(acms.RunFailed, match="file"):
        acms.Scenario.load("smoke").run(out=tmp_path / "file")
