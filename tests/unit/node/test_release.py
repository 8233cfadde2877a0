"""Who gets shares from a running node, when, and what is durable before they leave (F-04, I-1, I-2, I-5, I-9)."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from p2pledger.engine.events import Now
from p2pledger.health.deposits import DepositTable
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.operations import ConsentRevoke
from p2pledger.health.release import ReleaseEntry, ReleaseRequest
from p2pledger.network import api
from p2pledger.network.clients import Session
from p2pledger.node import release
from p2pledger.node.metrics import make_metrics
from p2pledger.node.release import Releasing, is_current
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey, Height
from p2pledger.threshold.dkg import CeremonyId
from p2pledger.threshold.long_term import LongTermHolder
from p2pledger.threshold.one_time import OneTimeHolder
from tests.unit.execution.ledger import id16, key
from tests.unit.health.ceremonies import hold
from tests.unit.health.charts import READER, Chart
from tests.unit.health.one_time import OneTimeChart
from tests.unit.health.world import BERG, DOCTOR, NURSE, PATIENT, TAL, World


class Tip:
    """What a node's release needs of an engine, of a chain in memory."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.founding, self.chain = world.founding, world.chain
        self.is_ready = True
        self.statuses: dict[bytes, Any] = {}

    @property
    def executor(self) -> Any:
        world = self._world
        last = SimpleNamespace(time_ms=world.now_ms - 1_000)
        return SimpleNamespace(state=world.state, executed=Height(world.height), last=last)


class Node:
    """One validator of a chart, asked as its client port asks."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.tip = Tip(chart.world)
        self.keeper = chart.keepers[0]
        self.durable: list[ReleaseEntry] = []
        self.meanwhile = lambda: None
        """Happens on the chain after the entries are durable."""
        self.new_block = trio.Event()
        self.metrics = make_metrics()
        self.releasing = Releasing(
            self.tip,  # type: ignore[arg-type]
            self.holder_of,
            self.one_time_holder_of,
            self.write_down,
            self.next_block,
            lambda: Now(0, chart.world.now_ms),
            chart.random,
            self.metrics,
            started_at=Height(0),
            threads=0,
        )

    def holder_of(self, active: ActiveKey) -> LongTermHolder | None:
        held = (active.key.key_epoch, active.key.share_epoch) in self.keeper.shares
        return self.keeper.holder(active.key.key_epoch) if held else None

    def one_time_holder_of(self, table: DepositTable) -> OneTimeHolder | None:
        return self.chart.holder(self.keeper) if isinstance(self.chart, OneTimeChart) else None

    async def write_down(self, entries: Sequence[ReleaseEntry]) -> None:
        await trio.lowlevel.checkpoint()
        self.durable += entries
        self.meanwhile()

    async def next_block(self) -> None:
        await self.new_block.wait()

    async def shares(self, request: ReleaseRequest, session: Session | None = None) -> api.SharesReply:
        return await self.releasing.shares(session or by(DOCTOR), api.GetShares(1, request))

    async def refusal(self, request: ReleaseRequest, session: Session | None = None) -> Code:
        with pytest.raises(Rejected) as refused:
            await self.shares(request, session)
        return refused.value.code

    def counted(self, code: Code) -> float:
        return self.metrics.release_refused[code]._value.get()


def by(asker: Any) -> Session:
    return Session(AccountKey(asker.public), "practitioner", "127.0.0.1")


@pytest.fixture
def chart() -> Chart:
    made = Chart()
    assert made.world.grant() == Code.OK
    return made


@pytest.fixture
def node(chart: Chart) -> Node:
    return Node(chart)


async def test_shares_of_all_openings_in_their_order(node: Node, chart: Chart) -> None:
    request = chart.allow(*range(7))
    reply = await node.shares(request)
    assert (reply.validator, reply.index) == (node.keeper.validator, 1)
    assert (reply.key_epoch, reply.share_epoch) == (1, 0)
    judged = chart.may_release(request)
    assert not isinstance(judged, Code)
    for entry, share, capsule, content in zip(judged, reply.shares, chart.capsules, chart.content_keys, strict=False):
        shares = {**chart.shares(entry, capsule), 1: share}
        opened = chart.release.open(capsule, entry.label, entry.access, READER, shares)
        assert (opened.content_key, opened.wrong) == (content, ())
    assert node.durable == list(judged)
    assert node.metrics.release_shares._value.get() == 7


@pytest.mark.parametrize("asker", [NURSE, PATIENT, BERG, key("stranger")])
async def test_only_the_key_of_the_access_may_ask(node: Node, chart: Chart, asker: Any) -> None:
    """The sealed shares would be of no use to it, but who asks is nobody else's to find out or to spend."""
    request = chart.allow(0)
    assert await node.refusal(request, by(asker)) == Code.E_ROLE
    assert node.durable == []
    assert node.counted(Code.E_ROLE) == 1


async def test_no_share_before_its_entry_is_durable(node: Node, chart: Chart, monkeypatch: pytest.MonkeyPatch) -> None:
    """I-9: nothing is even computed before."""
    request = chart.allow(0, 1)
    computed: list[int] = []
    share_of = release.release.share_of

    def seen(*arguments: Any) -> bytes:
        computed.append(len(node.durable))
        return share_of(*arguments)

    monkeypatch.setattr(release.release, "share_of", seen)
    await node.shares(request)
    assert computed == [2, 2]


async def test_a_revocation_that_overtakes_a_release_is_obeyed(node: Node, chart: Chart) -> None:
    """I-2: judged once more at the height at which the shares would leave. The entry stays: it may say too much."""
    request = chart.allow(0)
    node.meanwhile = lambda: chart.world.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn"))  # type: ignore[assignment]
    assert await node.refusal(request) == Code.E_REVOKED
    assert len(node.durable) == 1


async def test_a_block_that_changes_nothing_stops_no_release(node: Node, chart: Chart) -> None:
    request = chart.allow(0)
    node.meanwhile = lambda: chart.world.register("porter", "practitioner", TAL, "Tal")
    assert len((await node.shares(request)).shares) == 1


async def test_no_old_share_after_a_new_sharing_became_active(node: Node, chart: Chart) -> None:
    """I-10, also for a request that was under way."""
    request = chart.allow(0)
    node.meanwhile = lambda: hold(chart.world, CeremonyId(1, 1, 0), chart.keepers)  # type: ignore[assignment,return-value]
    assert await node.refusal(request) == Code.E_NO_SHARE


async def test_a_node_without_its_share_says_so(node: Node, chart: Chart) -> None:
    request = chart.allow(0)
    node.keeper.shares.clear()
    assert await node.refusal(request) == Code.E_NO_SHARE
    assert node.durable == []


async def test_what_the_rule_of_release_refuses_is_refused_and_counted(node: Node, chart: Chart) -> None:
    request = chart.allow(0)
    assert await node.refusal(replace(request, salt=id16("other") * 2)) == Code.E_SCOPE
    assert node.counted(Code.E_SCOPE) == 1
    assert node.durable == []


async def test_openings_of_one_key_epoch_at_a_time(node: Node, chart: Chart) -> None:
    request = chart.allow(0, 1)
    first, second = request.openings
    assert await node.refusal(replace(request, openings=(first, replace(second, key_epoch=2)))) == Code.E_KEY_EPOCH
    unknown = tuple(replace(opening, key_epoch=9) for opening in request.openings)
    assert await node.refusal(replace(request, openings=unknown)) == Code.E_NOT_FOUND


async def test_an_access_that_a_faster_node_has_executed_is_waited_for(node: Node, chart: Chart) -> None:
    chart.allow(0)
    asked = chart.asked(1, name="later")
    replies: list[api.SharesReply] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            replies.append(await node.shares(chart.request(1, name="later")))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert not replies
        assert chart.world.decided(asked).is_allowed
        node.new_block.set()
    assert len(replies) == 1


async def test_an_access_that_does_not_come_is_not_found(
    node: Node, chart: Chart, autojump_clock: trio.testing.MockClock
) -> None:
    assert await node.refusal(chart.request(0)) == Code.E_NOT_FOUND
    assert trio.current_time() == pytest.approx(release.ACCESS_WAIT_S)


async def test_a_session_cannot_have_more_under_way_than_its_share(node: Node, chart: Chart) -> None:
    """What is beyond is told to come later; another session is not touched, and room comes back."""
    request, session = chart.allow(0), by(DOCTOR)
    node.releasing._under_way[session] = limits.RELEASE_RECORDS_MAX
    assert await node.refusal(request, session) == Code.E_BUSY
    assert len((await node.shares(request)).shares) == 1
    node.releasing._under_way[session] = release.RECORDS_WAITING_MAX
    assert await node.refusal(request) == Code.E_BUSY
    del node.releasing._under_way[session]
    assert len((await node.shares(request, session)).shares) == 1
    assert not node.releasing._under_way


def test_judging_releases_and_writes_nothing(node: Node, chart: Chart) -> None:
    request = chart.allow(0)
    assert node.releasing.judge(api.Judge(5, request)) == api.JudgeReply(5, Code.OK)
    by_doctor, by_nurse = (api.Judge(5, request, AccountKey(reader.public)) for reader in (DOCTOR, NURSE))
    assert node.releasing.judge(by_doctor) == api.JudgeReply(5, Code.OK)
    assert node.releasing.judge(by_nurse) == api.JudgeReply(5, Code.E_ROLE), "the access is the doctor's"
    assert chart.world.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn")) == Code.OK
    assert node.releasing.judge(api.Judge(5, request)) == api.JudgeReply(5, Code.E_REVOKED)
    assert node.durable == []


# A node that does not know what the others have decided


def told(node: Node, *heights: int) -> None:
    cards = node.tip.founding.genesis.cards[1:]
    node.tip.statuses = {
        card.node: SimpleNamespace(committed=height) for card, height in zip(cards, heights, strict=False)
    }


async def test_a_node_that_is_behind_releases_nothing(node: Node, chart: Chart) -> None:
    """E_STALE while it catches up, and while somebody honest says that the chain is further."""
    request = chart.allow(0)
    window, height = node.tip.founding.parameters.window, chart.world.height
    node.tip.is_ready = False
    assert await node.refusal(request) == Code.E_STALE
    node.tip.is_ready = True
    told(node, height + window + 1, height + window + 1)
    assert await node.refusal(request) == Code.E_STALE
    told(node, height + window, height + window)
    assert len((await node.shares(request)).shares) == 1


def test_one_liar_cannot_make_a_node_silent(node: Node, chart: Chart) -> None:
    told(node, 2**40, chart.world.height, chart.world.height)
    assert is_current(node.tip, Height(0))  # type: ignore[arg-type]


def test_a_restored_home_first_hears_or_executes_something(node: Node, chart: Chart) -> None:
    height = Height(chart.world.height)
    assert not is_current(node.tip, height)  # type: ignore[arg-type]
    chart.world.register("porter", "practitioner", TAL, "Tal")
    assert is_current(node.tip, height)  # type: ignore[arg-type]


def test_strangers_heights_do_not_count(node: Node, chart: Chart) -> None:
    node.tip.statuses = {bytes([at]) * 32: SimpleNamespace(committed=2**40) for at in range(3)}
    assert is_current(node.tip, Height(0))  # type: ignore[arg-type]
