"""A writer's deposit of one-time secrets: show each validator its boxes, and wait until enough have acknowledged them.

1. The batch is on the chain, committed to with the capsules' hashes.
2. Every validator is shown all capsules with their leaves, at the same time. Each says at once which of its shares are
   no good, and acknowledges the others on the chain.
3. The writer reads the acknowledgements from proven state. Before t of them nobody can be given a record.

Nothing of this is remembered here: whoever was interrupted does it again, and what is acknowledged already stays so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from p2pledger.client.ledger import LedgerClient
from p2pledger.client.links import Node
from p2pledger.client.openings import deposit_table, portions, secret_of
from p2pledger.client.vault import Vault
from p2pledger.health import deposits, keys
from p2pledger.health.deposit_operations import indices_of
from p2pledger.health.deposits import DepositTable
from p2pledger.health.release import RecordOpening
from p2pledger.network.api import Deposit, DepositReply
from p2pledger.primitives.errors import Code, InvalidInput, PeerFault, ProofError, Unavailable
from p2pledger.threshold.one_time import ONE_TIME_EPOCH

_FAULTS = (Unavailable, PeerFault, ProofError, InvalidInput, trio.TooSlowError)
WAIT_S = 60.0
"""For enough acknowledgements to be proven."""
STRAGGLERS_S = 3.0
"""For the others, once enough are."""
POLL_S = 0.2
_ID = 0


@dataclass(frozen=True, slots=True)
class Custody:
    """What one member of the table has of a batch."""

    validator: bytes
    organisation: str
    acknowledged: int
    """Records, as the chain has it."""
    reason: str
    """Why not all; empty where it is all of them."""


@dataclass(frozen=True, slots=True)
class Deposited:
    """How a deposit stands, as a checkpoint proves it."""

    batch_id: bytes
    records: int
    threshold: int
    custody: tuple[Custody, ...]
    """One for each member of the table, in its order."""
    open: int
    """Records that fewer than t have acknowledged: nobody can be given them."""


@dataclass(slots=True)
class _Heard:
    """What the validators have said at the door, by their ids."""

    bad: dict[bytes, int] = field(default_factory=dict)
    silent: dict[bytes, str] = field(default_factory=dict)
    accepted: set[bytes] = field(default_factory=set)


async def newest_table(ledger: LedgerClient) -> DepositTable | None:
    """The newest table of deposit keys at the last checkpoint, or None; for whoever has an identity."""
    _, value = await ledger.state(keys.NEWEST_TABLE)
    number = deposits.decode_number(value)
    return await deposit_table(ledger, number) if number else None


async def deposit(ledger: LedgerClient, vault: Vault, batch_id: bytes, wait_s: float = WAIT_S) -> Deposited:
    """Deposit all records of a kept batch that is on the chain; as the custodian or the author.

    Raises InvalidInput for a batch without one-time secrets, Unavailable where no checkpoint proves its table yet, and
    what `LedgerClient.state` raises. Too few acknowledgements are no error here: `Deposited.open` counts.
    """
    openings = await trio.to_thread.run_sync(vault.openings, batch_id)
    if not openings or openings[0].key_epoch != ONE_TIME_EPOCH:
        raise InvalidInput(f"batch {batch_id.hex()} has no one-time secrets: there is nothing to deposit")
    table = await deposit_table(ledger, secret_of(openings[0])[1])
    heard = await _show(ledger, table, openings)
    return await _awaited(ledger, table, openings, heard, wait_s)


async def _show(ledger: LedgerClient, table: DepositTable, openings: Sequence[RecordOpening]) -> _Heard:
    """All portions to all nodes, each node for itself."""
    heard = _Heard()
    validators = {member.node: member.id for member in ledger.founding.validators.members}
    heard.silent.update(dict.fromkeys(table.holders, "no node of it is known here"))

    async def show(node: Node, validator: bytes) -> None:
        bad = 0
        try:
            for places in portions(openings):
                question = Deposit(_ID, tuple(openings[place] for place in places))
                reply = await ledger.ask_one(node, question, DepositReply)
                if reply.validator != validator:
                    raise PeerFault(node.key, f"answers for validator {reply.validator.hex()}, which is not its own")
                bad += len(reply.bad)
        except _FAULTS as error:
            late = isinstance(error, trio.TooSlowError)
            heard.silent[validator] = "no answer in time" if late else str(error)
            return
        del heard.silent[validator]
        heard.accepted.add(validator)
        heard.bad[validator] = bad

    async with trio.open_nursery() as nursery:
        for node in ledger.nodes:
            validator = validators.get(node.key)
            if validator in table.holders:
                nursery.start_soon(show, node, validator)
    return heard


async def _awaited(
    ledger: LedgerClient, table: DepositTable, openings: Sequence[RecordOpening], heard: _Heard, wait_s: float
) -> Deposited:
    """What is proven once all have acknowledged who said that they would, or t have and the others take their time."""
    batch_id, indices = openings[0].batch_id, {opening.proof.leaf.index for opening in openings}
    said = await _acknowledged(ledger, table, batch_id)
    with trio.move_on_after(wait_s) as waiting:
        while any(len(said[one]) < len(indices) - heard.bad[one] for one in heard.accepted):
            if not _open(said, indices, table.threshold):
                waiting.deadline = min(waiting.deadline, trio.current_time() + STRAGGLERS_S)
            await trio.sleep(POLL_S)
            said = await _acknowledged(ledger, table, batch_id)
    names: dict[bytes, str] = {card.validator: card.name for card in ledger.founding.genesis.cards}
    custody = tuple(
        Custody(one, names.get(one, one.hex()), len(said[one]), _reason(one, len(indices - said[one]), heard))
        for one in table.holders
    )
    return Deposited(batch_id, len(indices), table.threshold, custody, _open(said, indices, table.threshold))


async def _acknowledged(ledger: LedgerClient, table: DepositTable, batch_id: bytes) -> dict[bytes, set[int]]:
    """By member of the table, the records that it has acknowledged at the last checkpoint."""
    found: dict[bytes, set[int]] = {}
    for validator in table.holders:
        _, data = await ledger.state(keys.deposited(batch_id, validator))
        said = None if data is None else deposits.decode_deposited(data)
        is_same = said is not None and said.table == table.number
        found[validator] = set(indices_of(said.records)) if said is not None and is_same else set()
    return found


def _open(said: dict[bytes, set[int]], indices: set[int], threshold: int) -> int:
    return sum(sum(index in own for own in said.values()) < threshold for index in indices)


def _reason(validator: bytes, missing: int, heard: _Heard) -> str:
    if not missing:
        return ""
    if validator in heard.silent:
        return heard.silent[validator]
    if heard.bad.get(validator):
        return f"its shares of {heard.bad[validator]} records do not fit"
    return "took them, and the chain has no acknowledgement yet"


def demand_enough(done: Deposited) -> None:
    """Raises Unavailable naming who is missing and why, unless every record can be given to a reader."""
    if done.open:
        missing = "; ".join(f"{one.organisation}: {one.reason}" for one in done.custody if one.reason)
        raise Unavailable(
            f"{Code.E_DEAL.name}: {done.open} of {done.records} records of batch {done.batch_id.hex()} are not "
            f"acknowledged by {done.threshold} validators yet; {missing}; "
            f"go on with: p2pledger record deposit {done.batch_id.hex()}"
        )
