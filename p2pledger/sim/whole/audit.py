"""The last look at a run of whole nodes: what was promised to clients is what every store holds."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from p2pledger.chain.batch import parse_batch
from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import parse
from p2pledger.execution import keys
from p2pledger.node.home import Home
from p2pledger.node.node import Node, opened_stores
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.ids import AccountKey, Height, Nonce, TransactionId
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.whole.testimony import Testimony
from p2pledger.state import tree


def same_receipts(nodes: Sequence[Node], acknowledged: Mapping[tuple[AccountKey, Nonce], Executed]) -> None:
    """Every node knows every acknowledged receipt as the client got it (9)."""
    for node in nodes:
        executor = node.engine.executor
        for (account, nonce), executed in acknowledged.items():
            number = keys.account_number(account, executor.state)
            found = None if number is None else executor.receipt(number, nonce)
            if found != executed:
                raise InvariantBroken(f"9: the acknowledged receipt of nonce {nonce} is {found} at a node")


def same_states(nodes: Sequence[Node]) -> None:
    """Stores at one height hold the same keys and values under the same root (6)."""
    found: dict[Height, tuple[bytes, bytes]] = {}
    for node in nodes:
        snapshot = node.driver.state.snapshot()
        try:
            content = hashlib.sha256(b"".join(sha256(key) + sha256(value) for key, value in snapshot.scan(b"")))
            state = (tree.root(snapshot.tree), content.digest())
            if found.setdefault(snapshot.height, state) != state:
                raise InvariantBroken(f"6: two states at height {snapshot.height}")
        finally:
            snapshot.close()


def audit_stores(homes: Sequence[Home], testimony: Testimony) -> list[int]:
    """The tips of the stopped nodes' stores, opened once more: one chain, each acknowledged transaction in it once."""
    promised = {executed.receipt.transaction for executed in testimony.acknowledged.values()}
    highest = max((executed.receipt.height for executed in testimony.acknowledged.values()), default=Height(0))
    tips = []
    for home in homes:
        with opened_stores(home) as stores:
            tip = stores.ledger.tip()
            found: Counter[TransactionId] = Counter()
            for height in range(1, tip + 1):
                record = stores.ledger.block(Height(height))
                assert record is not None
                for batch in record.header.batches:
                    body = stores.ledger.body(batch)
                    if body is None:
                        raise InvariantBroken(f"9: block {height} is stored without the body {batch.hex()}")
                    found.update(parse(data).id for data in parse_batch(body).transactions)
        if tip < highest:
            raise InvariantBroken(f"9: a store ends at {tip}, a client holds a receipt of {highest}")
        missing = [transaction for transaction in promised if not found[transaction]]
        if missing:
            raise InvariantBroken(f"9: {len(missing)} acknowledged transactions are in no stored block")
        tips.append(int(tip))
    return tips
