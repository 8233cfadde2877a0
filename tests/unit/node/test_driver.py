"""The driver performs: durable before signed, signed before sent (P19)."""

from pathlib import Path
from typing import Any, cast

from p2pledger.chain.genesis import Parameters
from p2pledger.chain.transaction import parse, sign
from p2pledger.consensus.journal import VoteRecord
from p2pledger.consensus.messages import Message
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import Submitted
from p2pledger.engine.executor import genesis_flush
from p2pledger.network.peers import PeerLinks
from p2pledger.node.driver import ConsensusSigner, Driver
from p2pledger.node.metrics import make_metrics
from p2pledger.node.surroundings import Surroundings
from p2pledger.primitives.ids import Millis, Nonce, Signature, ValidatorId
from p2pledger.sim.application import Put, RegisterApplication
from p2pledger.sim.founding import found
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore
from p2pledger.storage.sign_floor import SignFloor


class Witness:
    """Signs, and notes whether the store held each statement by then."""

    def __init__(self, signer: ConsensusSigner, ledger: MemoryLedgerStore) -> None:
        self.signer = signer
        self.ledger = ledger
        self.was_durable: dict[str, bool] = {}

    def sign(self, message: Message) -> Signature:
        self.was_durable[type(message).__name__] = VoteRecord(message) in self.ledger.journal()
        return self.signer.sign(message)


async def test_nothing_is_signed_before_it_is_durable(tmp_path: Path) -> None:
    """P19: all writes of a turn are in the store before anything of that turn is signed."""
    consortium = found(1, Parameters())
    founding, application = consortium.founding, RegisterApplication()
    ledger, state = MemoryLedgerStore(founding.chain, founding.header.hash), MemoryStateStore()
    state.flush(genesis_flush(application, founding))
    now = Surroundings().now()
    validator = ValidatorId(consortium.consensus[0].public)
    engine = Engine(founding, application, consortium.nodes[0], validator, ledger, state, now)
    floor = SignFloor(tmp_path / "floor")
    floor.adopt(ledger.identity, ledger.tip())
    witness = Witness(ConsensusSigner(consortium.consensus[0], founding.chain), ledger)
    nobody = cast(PeerLinks, None)
    driver = Driver(engine, ledger, state, nobody, cast(Any, witness), floor, make_metrics(), 1, lambda executed: None)
    await driver._perform(engine.start())
    expires = Millis(now.wall_ms + 60_000)
    transaction = parse(sign(founding.chain, consortium.accounts[0], Nonce(1), expires, [Put(b"k", b"v")]))
    await driver._perform(engine.handle(Submitted(1, (transaction,)), now))
    assert witness.was_durable == {"PrePrepare": True, "Prepare": True, "Commit": True}
    assert ledger.tip() >= 1
