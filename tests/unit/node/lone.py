"""A consortium of one member on real LMDB stores, its engine driven by hand: no task, no port, no clock of its own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from p2pledger.chain.transaction import Transaction
from p2pledger.client.keyring import Wallet
from p2pledger.client.signing import Draft
from p2pledger.consensus.messages import Commit, Signed
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import (
    Answer,
    EngineEffect,
    Flush,
    Flushed,
    Now,
    OwnSigned,
    SignMessage,
    Stop,
    Submitted,
    Woke,
    Write,
)
from p2pledger.engine.executor import genesis_flush
from p2pledger.health.application import HealthApplication
from p2pledger.node.ceremony import create_consortium
from p2pledger.node.driver import ConsensusSigner
from p2pledger.node.home import Home
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey, Height, Millis, Nonce
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.state_store import LmdbStateStore

START_MS = 1_700_000_000_000
HOSPITAL = "City Hospital"


def home_of_one(folder: Path) -> Home:
    """The home of the only member of a new consortium."""
    (created,) = create_consortium(
        folder, [(HOSPITAL, "hospital")], name="Alone", created_ms=START_MS, parameters={"heartbeat_ms": "0"}
    )
    return Home.load(created.home, {})


@dataclass
class Lone:
    """The engine, and what a driver does for it. A flush that is held back is one that a crash prevented."""

    home: Home
    ledger: LmdbLedgerStore
    state: LmdbStateStore
    engine: Engine
    now: Now
    holds_flushes: bool
    dies_before_commit: bool = False
    """As a crash would between the write of a COMMIT and its signature."""
    signed: list[Signed] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)

    def perform(self, effects: list[EngineEffect]) -> None:
        """Writes first, then everything else, until nothing follows."""
        while effects:
            writes = [effect.write for effect in effects if isinstance(effect, Write)]
            if writes:
                self.ledger.apply(writes)
            effects = [more for effect in effects for more in self._one(effect)]

    def _one(self, effect: EngineEffect) -> list[EngineEffect]:
        match effect:
            case SignMessage() if not (self.dies_before_commit and isinstance(effect.message, Commit)):
                key = ConsensusSigner(self.home.keys.consensus, self.home.founding.chain)
                self.signed.append(Signed(effect.message, key.sign(effect.message)))
                return self.engine.handle(OwnSigned(self.signed[-1]), self.now)
            case Flush() if not self.holds_flushes:
                self.state.flush(effect.flush)
                return self.engine.handle(Flushed(effect.flush.height), self.now)
            case Answer():
                assert effect.refusals == [None]
            case Stop():
                self.stops.append(effect)
            case _:
                pass
        return []

    def submit(self, transaction: Transaction) -> Height:
        """The height at which a transaction was executed, after everything about it is in a header."""
        before = self.engine.executor.executed
        self.perform(self.engine.handle(Submitted(1, (transaction,)), self.now))
        while self.engine.executor.executed == before or self.engine.executor.has_unsealed(
            self.engine.executor.last.executed_height
        ):
            self.now = Now(self.now.monotonic_ms + 20, self.now.wall_ms + 20)
            self.perform(self.engine.handle(Woke(), self.now))
        return Height(before + 1)

    def register(self, number: int) -> Height:
        """Somebody new at the hospital; the height at which that was executed."""
        height = self.submit(self.registration(number))
        (executed,) = self.engine.executor.receipts_at(height)
        assert executed.receipt.code == Code.OK
        return height

    def registration(self, number: int) -> Transaction:
        persona = Wallet(number.to_bytes(32, "big")).at(self.home.card.organisation)
        organisation = self.home.office().account
        draft = Draft.new(
            self.home.founding.chain,
            persona.account,
            Nonce(1),
            Millis(self.now.wall_ms + 60_000),
            [persona.registration("practitioner", bytes(32))],
            [AccountKey(organisation.public)],
        )
        return draft.signed(persona.signing).signed(organisation).transaction()


@contextmanager
def lone_node(home: Home, now_ms: int = 0, holds_flushes: bool = False) -> Iterator[Lone]:
    """The stores opened and the engine made, not started."""
    founding, application = home.founding, HealthApplication()
    home.data.mkdir(exist_ok=True)
    with ExitStack() as stack:
        ledger = LmdbLedgerStore(home.ledger, founding.chain, home.node, founding.header.hash)
        stack.callback(ledger.close)
        state = LmdbStateStore(home.state, founding.chain)
        stack.callback(state.close)
        if state.is_new:
            state.flush(genesis_flush(application, founding))
        now = Now(now_ms, START_MS + now_ms)
        engine = Engine(founding, application, home.keys.node, home.validator, ledger, state, now)
        stack.callback(engine.executor.close)
        yield Lone(home, ledger, state, engine, now, holds_flushes)
