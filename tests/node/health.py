"""What a founding organisation does all day, as load, and what must hold of receipts and nodes afterwards."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import trio

from p2pledger.client.depositing import newest_table
from p2pledger.client.keyring import OrganisationWallet, Persona, Wallet
from p2pledger.client.ledger import LedgerClient, Receipt, open_ledger
from p2pledger.demo.autopsy import Remains, remains_of
from p2pledger.demo.cluster import Cluster
from p2pledger.health.operations import CredentialIssue
from p2pledger.health.vocabulary import IdentityKind
from p2pledger.network.api import AwaitReceipt, ReceiptReply
from p2pledger.network.connection import connect
from p2pledger.primitives.errors import Code, Unavailable

PATIENCE_S = 90.0
"""Only a test that fails waits for so long."""
POLL_S = 0.05
_ZERO = bytes(32)


@dataclass
class Hospital:
    """A founding organisation with one physician, talking to some of the nodes."""

    cluster: Cluster
    wallet: OrganisationWallet
    ledger: LedgerClient
    physician: Persona

    def operation(self) -> CredentialIssue:
        """The physician's credential once more; it ended long ago, so every issue replaces the one before."""
        return CredentialIssue(self.physician.did, "physician", _ZERO, valid_from_ms=0, valid_to_ms=1)

    async def issue(self) -> Receipt:
        return await self.ledger.submit(self.operation())


@asynccontextmanager
async def hospital(cluster: Cluster, nodes: Sequence[str] | None = None) -> AsyncIterator[Hospital]:
    """The first member as a client of these nodes (or of all), its physician registered."""
    wallet = cluster.wallet(cluster.names[0])
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(
            open_ledger(cluster.founding, cluster.addresses(nodes), wallet.account)
        )
        physician = await register(cluster, wallet, "practitioner", nodes)
        yield Hospital(cluster, wallet, ledger, physician)


async def register(
    cluster: Cluster, wallet: OrganisationWallet, kind: IdentityKind, nodes: Sequence[str] | None = None
) -> Persona:
    """Somebody new at an organisation."""
    persona = Wallet(secrets.token_bytes(32)).at(wallet.organisation)
    async with open_ledger(cluster.founding, cluster.addresses(nodes), persona.signing) as own:
        receipt = await own.submit(persona.registration(kind, _ZERO), cosigners=[wallet.account])
    assert receipt.code == Code.OK
    return persona


@dataclass
class Load:
    """Many at once, again and again, until told to stop; remembers every receipt that was proven to it."""

    hospital: Hospital
    receipts: list[Receipt] = field(default_factory=list)
    unanswered: int = 0
    """Submissions of which nobody proved a receipt in time: they may or may not have executed."""
    in_flight: int = 0
    is_over: bool = False

    async def work(self) -> None:
        while not self.is_over:
            self.in_flight += 1
            try:
                self.receipts.append(await self.hospital.issue())
            except Unavailable:
                self.unanswered += 1
            self.in_flight -= 1

    async def more(self, count: int) -> None:
        """Wait until so many further transactions were acknowledged."""
        wanted = len(self.receipts) + count

        async def enough() -> bool:
            return len(self.receipts) >= wanted

        await until(enough, f"{count} more receipts")


@asynccontextmanager
async def load(at: Hospital, width: int) -> AsyncIterator[Load]:
    """`width` transactions in flight while the block runs; then those under way are waited for."""
    running = Load(at)
    async with trio.open_nursery() as nursery:
        for _ in range(width):
            nursery.start_soon(running.work)
        try:
            yield running
        except BaseException:
            nursery.cancel_scope.cancel()
            raise
        running.is_over = True


async def until(holds: Callable[[], Awaitable[bool]], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait until it holds; fails naming what did not come."""
    with trio.move_on_after(timeout_s):
        while not await holds():
            await trio.sleep(POLL_S)
        return
    raise AssertionError(f"{what} did not come within {timeout_s:g} s")


async def height(cluster: Cluster, name: str) -> int:
    return int(await cluster.metric(name, "p2pledger_execution_height"))


async def reaches(cluster: Cluster, names: Iterable[str], wanted: int) -> None:
    """Wait until these nodes have executed the height."""
    for name in names:

        async def there(name: str = name) -> bool:
            return await height(cluster, name) >= wanted

        await until(there, f"height {wanted} at {name!r}")


async def quiet(cluster: Cluster, names: Sequence[str]) -> None:
    """All nodes have announced their deposit keys, nothing is owed any more, and the last checkpoint's root stands in a
    header: without a quorum none would come."""
    before: list[int] = []

    async def still() -> bool:
        owed = [await cluster.metric(name, "p2pledger_release_unreported") for name in names]
        heights = [await height(cluster, name) for name in names]
        is_same, before[:] = heights == before and len(set(heights)) == 1, heights
        async with open_ledger(cluster.founding, cluster.addresses(names), cluster.wallet(names[0]).account) as own:
            try:
                table = await newest_table(own)
            except Unavailable:
                return False
        return is_same and not any(owed) and table is not None and len(table.holders) == len(cluster.names)

    await until(still, "a quiet chain")


async def view(cluster: Cluster, name: str) -> int:
    return int(await cluster.metric(name, "p2pledger_consensus_view"))


async def primary(at: Hospital) -> str:
    return (await at.ledger.status()).primary


@contextmanager
def all_remains(cluster: Cluster) -> Iterator[dict[str, Remains]]:
    """The stores of all members, whose nodes must have stopped."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(remains_of(home)) for name, home in cluster.homes.items()}


async def agree(cluster: Cluster, receipts: Sequence[Receipt] = ()) -> None:
    """Stop the nodes in order; then each one's own execution must have led to the same blocks, roots and receipts."""
    await cluster.stop()
    with all_remains(cluster) as remains:
        common = min(each.tip for each in remains.values())
        assert common > 0
        for at in range(1, common + 1):
            assert len({each.block_hash(at) for each in remains.values()}) == 1, f"blocks of height {at} differ"
            assert len({each.effects_root(at) for each in remains.values()}) == 1, f"effects of height {at} differ"
            assert len({each.state_root(at) for each in remains.values()}) == 1, f"states of height {at} differ"
        for tip in {each.tip for each in remains.values()}:
            digests = {each.state_digest() for each in remains.values() if each.tip == tip}
            assert len(digests) == 1, f"states at tip {tip} differ"
        for name, each in remains.items():
            for receipt in receipts:
                told = receipt.executed.receipt
                if told.height <= each.tip:
                    assert each.receipts(told.height)[told.index] == receipt.executed, f"{name!r} has another receipt"


async def receipt_at(cluster: Cluster, name: str, wallet: OrganisationWallet, nonce: int) -> ReceiptReply:
    """What a node tells now about a nonce of the organisation, proof included."""
    address = cluster.address(name)
    async with connect(address.host, address.port, address.key, wallet.account, cluster.founding.chain) as connection:
        reply = await connection.call(AwaitReceipt(0, wallet.account.public, nonce, True, 30_000))  # type: ignore[arg-type]
    assert isinstance(reply, ReceiptReply), reply
    return reply
