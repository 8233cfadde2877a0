"""F-04, I-1, I-2, I-9, I-10 with real processes: a joint key over the real chain, and shares for a reader."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pledger.demo.cluster import Cluster
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.threshold.key_release import TooFewShares
from tests.node.dying import CEREMONY, RELEASE, start_dying
from tests.node.health import until
from tests.node.readers import Chart, active_key, chart_of, gauge, reported, secret_files, sharing_comes
from tests.node.test_wallet import Terminal

pytestmark = pytest.mark.process

PARAMS = {"checkpoint_interval": 2}


async def sealed_to(consortium: Callable[..., Cluster], **params: object) -> Cluster:
    """Four validators that have made their first joint key by themselves."""
    cluster = consortium(4, params={**PARAMS, **params})
    await cluster.start()
    await cluster.wait_ready()
    await sharing_comes(cluster, cluster.names)
    return cluster


def codes(failures: tuple[tuple[object, Exception], ...]) -> list[Code]:
    return [error.code for _, error in failures if isinstance(error, Rejected)]


async def refresh(cluster: Cluster, terminal: Terminal, at: str) -> None:
    await terminal.types("sharing", "refresh", "--home", cluster.member(at).home)


async def test_validators_make_a_key_and_release_to_a_reader(
    consortium: Callable[..., Cluster], tmp_path: Path
) -> None:
    """Each one's share is its own; three of four open; a revocation ends it; the audit finds every release (I-9)."""
    cluster = await sealed_to(consortium)
    terminal = Terminal(cluster, tmp_path)
    homes = {name: ["--home", cluster.member(name).home] for name in cluster.names}
    status = await terminal.types("sharing", "status", *homes[cluster.names[0]])
    assert (status["key_epoch"], status["share_epoch"], status["this_home_holds_a_share"]) == (1, 0, True)
    assert status["shares_needed"] == "3 of 4"
    assert [secret_files(cluster, name) for name in cluster.names] == [["share-1-0-0"]] * 4, "seeds are gone"
    chart = await chart_of(cluster)
    heard = await chart.hear()
    assert {reply.index for reply in heard.replies} == {1, 2, 3, 4}
    for index, content in enumerate(chart.content_keys):
        assert chart.opened(heard.replies[:3], index).content_key == content
    with pytest.raises(TooFewShares):
        chart.opened(heard.replies[:2])
    await reported(chart, 4)
    for name in cluster.names:
        (row,) = await terminal.types("audit", "releases", *homes[name])
        assert (row["entries"], row["reported"], row["verdict"]) == (7, 7, "reported")
    await chart.revoke()
    refused = await chart.hear()
    assert refused.replies == ()
    assert codes(refused.failures) == [Code.E_REVOKED] * 4
    assert await cluster.metric(cluster.names[0], "p2pledger_release_refused_total") == 1


async def test_a_ceremony_survives_a_kill_at_each_of_its_steps(
    consortium: Callable[..., Cluster], tmp_path: Path
) -> None:
    """New shares again and again, one validator killed at another point each time: it always ends with its share."""
    cluster = await sealed_to(consortium)
    terminal, victim = Terminal(cluster, tmp_path), cluster.names[1]
    chart = await chart_of(cluster)
    for share_epoch, point in enumerate(CEREMONY, start=1):
        cluster.kill(victim)
        start_dying(cluster, victim, point)
        await cluster.wait_ready(victim)
        await refresh(cluster, terminal, cluster.names[0])
        assert await cluster.wait_end(victim, 90) == -9, point
        await cluster.start(victim)
        await cluster.wait_ready(victim)
        await sharing_comes(cluster, cluster.names, share_epoch)

        async def erased() -> bool:  # a node holds its new share a moment before it has erased the old one
            return len(secret_files(cluster, victim)) == 1

        await until(erased, f"the old share erased after {point!r}")
        (only,) = secret_files(cluster, victim)
        assert only.startswith(f"share-1-{share_epoch}-"), point
    heard = await chart.hear()
    key = await active_key(cluster, chart.wallet)
    assert chart.opened(heard.replies[:3], active=key).content_key == chart.content_keys[0]


async def test_a_release_survives_a_kill_at_each_of_its_steps(consortium: Callable[..., Cluster]) -> None:
    """The reader gets its shares from the others, later from the victim too; every entry is reported (I-9)."""
    cluster = await sealed_to(consortium)
    victim = cluster.names[1]
    for point in RELEASE:
        cluster.kill(victim)
        start_dying(cluster, victim, point)
        await cluster.wait_ready(victim)
        chart = await chart_of(cluster)
        heard = await chart.hear(cluster.names)
        assert await cluster.wait_end(victim, 30) == -9, point
        assert chart.opened(heard.replies).content_key == chart.content_keys[0]
        assert len(heard.replies) == 3
        await cluster.start(victim)
        await cluster.wait_ready(victim)
        if point != "before entry":
            await reported(chart, 4)
        await hears_all(chart)
        await reported(chart, 4)


async def hears_all(chart: Chart) -> None:
    async def heard() -> bool:
        return len((await chart.hear()).replies) == 4

    await until(heard, "shares from all four")


async def test_old_shares_are_gone_and_open_nothing_with_new_ones(
    consortium: Callable[..., Cluster], tmp_path: Path
) -> None:
    """I-10, and a validator that was killed after it had joined gets its share when it is back."""
    cluster = await sealed_to(consortium)
    terminal, late = Terminal(cluster, tmp_path), cluster.names[3]
    chart = await chart_of(cluster)
    old, old_key = (await chart.hear()).replies, chart.active
    cluster.kill(late)
    backup = tmp_path / "backup"
    shutil.copytree(cluster.member(late).layout.shares, backup)
    start_dying(cluster, late, "after LtsDeal")
    await cluster.wait_ready(late)
    await refresh(cluster, terminal, cluster.names[0])
    assert await cluster.wait_end(late, 90) == -9
    await cluster.start(late)
    await cluster.wait_ready(late)
    await sharing_comes(cluster, cluster.names, 1)
    assert [secret_files(cluster, name) for name in cluster.names] == [["share-1-1-0"]] * 4
    key = await active_key(cluster, chart.wallet)
    assert key.key.public == old_key.key.public
    new = (await chart.hear()).replies
    by_index = {reply.index: reply for reply in old}
    mixed = [*new[:2], by_index[next(iter({1, 2, 3, 4} - {reply.index for reply in new[:2]}))]]
    for active in (key, old_key):
        with pytest.raises(TooFewShares):
            chart.opened(mixed, active=active)
    assert chart.opened(new[:3], active=key).content_key == chart.content_keys[0]

    cluster.kill(late)
    shares = cluster.member(late).layout.shares
    shutil.rmtree(shares)
    shutil.copytree(backup, shares)
    await cluster.start(late)
    await cluster.wait_ready(late)

    async def cleaned() -> bool:
        return secret_files(cluster, late) == []

    await until(cleaned, "the restored share erased")
    heard = await chart.hear([late])
    assert codes(heard.failures) == [Code.E_NO_SHARE], "a restored old share is of no use"
    assert await gauge(cluster, late, "sharing_holds_share") == 0


async def test_a_home_restored_from_before_a_refresh_releases_nothing_old(
    consortium: Callable[..., Cluster], tmp_path: Path
) -> None:
    """I-10: the whole home is of yesterday, keys, journal, floor and share; asked from its first moment on."""
    cluster = await sealed_to(consortium)
    terminal, restored = Terminal(cluster, tmp_path), cluster.names[3]
    home = cluster.member(restored).home
    await cluster.stop(restored)
    shutil.copytree(home, tmp_path / "yesterday")
    await cluster.start(restored)
    await cluster.wait_ready(restored)
    chart = await chart_of(cluster)
    await refresh(cluster, terminal, cluster.names[0])
    await sharing_comes(cluster, cluster.names, 1)
    await cluster.stop(restored)
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "yesterday", home)
    assert secret_files(cluster, restored) == ["share-1-0-0"]
    await cluster.start(restored)
    said: list[object] = []

    async def knows() -> bool:
        heard = await chart.hear([restored], 0)
        said.extend([*(reply.share_epoch for reply in heard.replies), *codes(heard.failures)])
        return secret_files(cluster, restored) == []

    await until(knows, "the old share erased")
    said += codes((await chart.hear([restored], 0)).failures)
    assert set(said) <= {Code.E_STALE, Code.E_NOT_FOUND, Code.E_NO_SHARE}
    assert said[-1] == Code.E_NO_SHARE


async def test_an_operator_begins_and_a_further_key_stands_beside_the_first(
    consortium: Callable[..., Cluster], tmp_path: Path
) -> None:
    """begin = manual: nothing happens unasked. What was sealed to the first key opens with its shares ever after."""
    cluster = consortium(4, params=PARAMS)
    await cluster.start(environ={"P2PLEDGER_RELEASE__BEGIN": "manual"})
    await cluster.wait_ready()
    terminal, home = Terminal(cluster, tmp_path), ["--home", cluster.member(cluster.names[2]).home]
    await terminal.types("sharing", "refresh", *home, expect=2)
    assert [secret_files(cluster, name) for name in cluster.names] == [[]] * 4
    await terminal.types("sharing", "begin", *home)
    await sharing_comes(cluster, cluster.names)
    chart = await chart_of(cluster)
    await terminal.types("sharing", "begin", *home, expect=2)
    await terminal.types("sharing", "begin", "--new-key", *home)
    await sharing_comes(cluster, cluster.names, key_epoch=2)
    newer = await chart_of(cluster)
    assert (chart.active.key.key_epoch, newer.active.key.key_epoch) == (1, 2)
    assert chart.active.key.public != newer.active.key.public
    for one in (chart, newer):
        heard = await one.hear()
        assert one.opened(heard.replies[:3]).content_key == one.content_keys[0]
    assert [secret_files(cluster, name) for name in cluster.names] == [["share-1-0-0", "share-2-0-0"]] * 4
