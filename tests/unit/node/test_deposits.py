"""What a node says to a deposit, and what it then owes to the chain (rule 3.6)."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from p2pledger.engine.events import DutiesOwed, EngineEvent, Now
from p2pledger.health.deposit_operations import DepositAck, DepositKey, bits_of
from p2pledger.network import api
from p2pledger.network.clients import Session
from p2pledger.node.deposits import Depositing
from p2pledger.node.metrics import make_metrics
from p2pledger.node.release import RECORDS_WAITING_MAX
from p2pledger.node.surroundings import Surroundings
from p2pledger.primitives import limits
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey, ChainId, NodeId
from p2pledger.storage.deposit_files import DepositFiles
from tests.unit.execution.ledger import id16
from tests.unit.health.one_time import OneTimeChart, secret_of
from tests.unit.health.world import BERG, DOCTOR, SEE, TAL
from tests.unit.node.test_release import Tip


class Node:
    """One validator of a chart."""

    def __init__(self, chart: OneTimeChart, folder: Path) -> None:
        self.chart = chart
        self.keeper = chart.keepers[0]
        self.tip = Tip(chart.world)
        self.tip.me = NodeId(self.keeper.node.public)  # type: ignore[attr-defined]
        self.files = DepositFiles(folder, chart.world.chain, NodeId(self.keeper.node.public))
        self.new_block = trio.Event()
        self.posted: list[EngineEvent] = []
        self.metrics = make_metrics()
        self.now_ms = 0

    def start(self) -> Depositing:
        return Depositing(
            self.tip,  # type: ignore[arg-type]
            self.files,
            Surroundings(now=lambda: Now(self.now_ms, 0)),
            self.metrics,
            self.posted.append,
            self.next_block,
            threads=0,
        )

    async def next_block(self) -> None:
        await self.new_block.wait()

    @property
    def said(self) -> list[Any]:
        """The operations that it has handed to its engine."""
        return [operation for event in self.posted if isinstance(event, DutiesOwed) for operation in event.operations]


def by(asker: Any) -> Session:
    return Session(AccountKey(asker.public), "organisation", "127.0.0.1")


@pytest.fixture
def chart() -> OneTimeChart:
    return OneTimeChart()


@pytest.fixture
def node(chart: OneTimeChart, tmp_path: Path) -> Node:
    made = Node(chart, tmp_path / "deposits")
    made.files.write(1, sha256(b"deposit" + made.keeper.validator))
    return made


def deposit_of(chart: OneTimeChart, *indices: int) -> api.Deposit:
    return api.Deposit(7, tuple(chart.opening(index) for index in indices or range(chart.n)))


async def refusal(depositing: Depositing, question: api.Deposit, asker: Any = BERG) -> Code:
    with pytest.raises(Rejected) as refused:
        await depositing.deposit(by(asker), question)
    return refused.value.code


async def test_good_shares_are_acknowledged_and_bad_ones_named(node: Node, chart: OneTimeChart) -> None:
    chart.batch_id = id16("another batch")
    strange = secret_of(node.keeper, "another").public
    among = replace(chart.table, boxes=(strange, *chart.table.boxes[1:])).release
    chart.capsules = [*chart.sealed(among)[:2], *chart.sealed(chart.table.release)[2:]]
    chart.commit()
    depositing = node.start()
    reply = await depositing.deposit(by(BERG), deposit_of(chart))
    assert reply == api.DepositReply(7, node.keeper.validator, chart.table.number, (0, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(depositing.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert node.said == [DepositAck(chart.batch_id, chart.table.number, bits_of(range(2, 8)))]
    assert node.metrics.node_cpu_seconds["release"]._value.get() > 0


async def test_custodian_and_author_may_deposit_and_nobody_else(node: Node, chart: OneTimeChart) -> None:
    """The batch is Berg's, and Tal has written it."""
    depositing = node.start()
    for asker in (SEE, DOCTOR):
        assert await refusal(depositing, deposit_of(chart, 0), asker) == Code.E_ROLE
    for asker in (BERG, TAL):
        assert (await depositing.deposit(by(asker), deposit_of(chart, 0))).bad == ()


async def test_what_is_not_the_chains_is_refused(node: Node, chart: OneTimeChart) -> None:
    depositing = node.start()
    whole = deposit_of(chart)
    first, second = whole.openings[:2]
    for openings, code in [
        ((replace(first, capsule=second.capsule),), Code.E_CAPSULE),
        ((replace(first, key_epoch=1),), Code.E_CAPSULE),
        ((first, first), Code.E_FORMAT),
        ((first, replace(second, batch_id=id16("elsewhere"))), Code.E_FORMAT),
        ((replace(first, proof=replace(first.proof, size=9)),), Code.E_COMMIT_MISMATCH),
    ]:
        assert await refusal(depositing, api.Deposit(7, openings)) == code
    assert depositing.keeper is not None and depositing.keeper.owed == 0


async def test_a_batch_that_this_node_has_not_executed_yet_is_waited_for(
    node: Node, chart: OneTimeChart, autojump_clock: trio.testing.MockClock
) -> None:
    later = id16("later")
    depositing = node.start()
    chart.batch_id = later
    chart.capsules = chart.sealed(chart.table.release)
    question = deposit_of(chart, 0)
    replies: list[api.DepositReply] = []

    async def asks() -> None:
        replies.append(await depositing.deposit(by(BERG), question))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asks)
        await trio.testing.wait_all_tasks_blocked()
        chart.commit()
        node.new_block.set()
    assert replies[0].bad == ()
    node.new_block = trio.Event()
    never = replace(question, openings=(replace(question.openings[0], batch_id=id16("never")),))
    assert await refusal(depositing, never) == Code.E_NOT_FOUND


async def test_a_node_without_the_key_of_the_table_says_so(node: Node, chart: OneTimeChart) -> None:
    (node.files.folder / "deposit-1").unlink()
    assert await refusal(node.start(), deposit_of(chart, 0)) == Code.E_NO_SHARE


async def test_a_node_without_a_seat_takes_part_in_nothing(node: Node, chart: OneTimeChart) -> None:
    node.tip.me = NodeId(bytes(32))  # type: ignore[attr-defined]
    depositing = node.start()
    await depositing.run()
    assert node.said == []
    assert await refusal(depositing, deposit_of(chart, 0)) == Code.E_NO_SHARE


async def test_what_is_under_way_and_what_is_owed_is_bounded(node: Node, chart: OneTimeChart) -> None:
    depositing, session = node.start(), by(BERG)
    depositing._under_way[session] = limits.RELEASE_RECORDS_MAX
    with pytest.raises(Rejected, match="E_BUSY: 256 records of this session"):
        await depositing.deposit(session, deposit_of(chart, 0))
    depositing._under_way[session] = RECORDS_WAITING_MAX
    with pytest.raises(Rejected, match=r"E_BUSY: .* records wait"):
        await depositing.deposit(by(BERG), deposit_of(chart, 0))
    depositing._under_way.clear()
    assert depositing.keeper is not None
    for number in range(limits.DEPOSITS_OWED_MAX):
        depositing.keeper.found_good(id16(f"batch {number}"), chart.table.number, [0])
    assert await refusal(depositing, deposit_of(chart, 0)) == Code.E_BUSY
    assert not depositing._under_way


async def test_a_key_lies_on_the_disk_before_it_is_announced(chart: OneTimeChart, tmp_path: Path) -> None:
    """And nothing is said before the node knows the chain."""
    node = Node(chart, tmp_path / "empty")
    node.tip.is_ready = False
    depositing = node.start()
    seen: list[list[str]] = []
    post = node.posted.append

    def posted(event: EngineEvent) -> None:
        seen.append([path.name for path in node.files.folder.iterdir()])
        post(event)

    depositing.post = posted
    async with trio.open_nursery() as nursery:
        nursery.start_soon(depositing.run)
        await trio.testing.wait_all_tasks_blocked()
        assert node.said == []
        node.tip.is_ready = True
        event, node.new_block = node.new_block, trio.Event()
        event.set()
        while not node.said:
            await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    (said,) = node.said
    assert isinstance(said, DepositKey)
    assert seen == [["deposit-1"]]
    (secret,) = DepositFiles(node.files.folder, ChainId(chart.world.chain), node.files._node).load().values()
    assert depositing.keeper is not None and secret.hex() not in repr(depositing.keeper)
