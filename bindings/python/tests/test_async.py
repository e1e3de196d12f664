"""The asyncio twins."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

import acms
from conftest import children, directories, eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_all_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with acms.AsyncCluster(storage_points=3) as cluster:
            published = await asyncio.gather(*(cluster.publish(f"async/{i}", str(i)) for i in range(20)))
            async with cluster.receiver(["async"], into=tmp_path) as receiver:
                await asyncio.gather(*(receiver.wait_for(one, timeout=10) for one in published))
                await cluster.kill(1)
                client = cluster.client(2)
                last = await client.publish("async/0", b"last")
                async for event in receiver:
                    if event.uid == last.uid and event.kind == "applied":
                        break
            assert (tmp_path / "async/0").read_bytes() == b"last"
            assert (await cluster.get("async/0", at_least=last)).uid == last.uid
            assert (await cluster.outcome(last.uid)).agreed
            assert len(await cluster.status()) == 2
            await cluster.restart(1)
            await client.delete("async/1")

    asyncio.run(main())


def test_cancelled_means_undone(cluster: acms.Cluster, tmp_path: Path) -> None:
    before, kept = set(children(os.getpid())), directories()

    async def main() -> None:
        start = asyncio.create_task(acms.AsyncCluster(storage_points=3).start())
        await asyncio.sleep(0.02)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        async with acms.AsyncReceiver(cluster.urls, ["nothing"], tmp_path) as receiver:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receiver.wait_for("1.1.0", timeout=60), 0.1)
            events = aiter(receiver)
            assert (await anext(events)).kind == "ready"

    asyncio.run(main())
    assert eventually(lambda: set(children(os.getpid())) == before)
    assert eventually(lambda: directories() == kept)


def test_a_cancelled_run_is_undone(tmp_path: Path) -> None:
    before, kept = set(children(os.getpid())), directories()
    scenario, out = acms.Scenario.load("smoke").override(duration="100s"), tmp_path / "out"

    async def main() -> None:
        run = asyncio.create_task(scenario.run_async(out=out))
        while len(set(children(os.getpid())) - before) < 5:
            assert not run.done()
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0.1)

    asyncio.run(main())
    assert eventually(lambda: set(children(os.getpid())) == before)
    assert eventually(lambda: directories() == kept and not out.exists())


def test_not_started() -> None:
    with pytest.raises(acms.Invalid):
        _ = acms.AsyncCluster().urls
