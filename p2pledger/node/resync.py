"""Execute the whole ledger of a stopped node afresh, and let it run again if that agrees with the chain (P22).

Blocks are what a quorum decided and votes are what this key has signed: neither is touched, so the key can never sign
against itself through this. Only the state store is derived, and only it is replaced: the new one grows beside the old
one and takes its place when every root that any header lists, the disputed one too, has come out the same.
A process that dies on the way leaves a home that can be resynchronised again.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.consensus.certificates import check_certificate
from p2pledger.consensus.journal import HaltRecord
from p2pledger.consensus.messages import Certificate
from p2pledger.engine.executor import Executor, WrongRoot, genesis_flush
from p2pledger.engine.ports import LiftHalt, PutJournal
from p2pledger.execution.contract import Application
from p2pledger.node.home import Home
from p2pledger.primitives.errors import ConfigError, InvalidInput, StoreError
from p2pledger.primitives.ids import BlockHash, Height
from p2pledger.state.tree import root
from p2pledger.storage.audit import audit_state
from p2pledger.storage.environment import sync
from p2pledger.storage.home import exclusive_lock
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.state_store import LmdbStateStore

Progress = Callable[[str, int, int], None]
"""(what is done, heights done, heights in all)"""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A state store that agrees with the chain, and took the place of the old one."""

    height: Height
    """The last height executed: the ledger's tip."""
    checkpoint: Height
    """The height that the state store shows; `start` executes what is above it."""
    proven: Height
    """Up to here every block is under a commit certificate that was checked."""
    keys: int


def halt_mark(ledger: LmdbLedgerStore) -> HaltRecord | None:
    """What the journal says about a halt."""
    return next((record for record in ledger.journal() if isinstance(record, HaltRecord)), None)


class StoppedNode:
    """The stores of a node that does not run, under its home's lock."""

    def __init__(self, home: Home, ledger: LmdbLedgerStore, application: Application) -> None:
        self._home = home
        self._ledger = ledger
        self._application = application
        self._map_size = home.config.node.map_gib << 30
        self._fresh = home.state.with_name(home.state.name + ".resync")
        self._old = home.state.with_name(home.state.name + ".old")
        self.tip = ledger.tip()
        self.halt = halt_mark(ledger)

    def damage(self) -> str | None:
        """What is wrong with the state store by its own tree, or None. Reads all of it."""
        if not self._home.state.exists():
            return "there is no state store"
        try:
            state = LmdbStateStore(self._home.state, self._home.founding.chain, self._map_size)
        except (StoreError, ConfigError) as error:
            return str(error)
        try:
            if state.is_new:
                return "the state store is empty"
            _audit(state)
        except StoreError as error:
            return str(error)
        finally:
            state.close()
        return None

    def rebuild(self, progress: Progress) -> Rebuilt:
        """Execute everything afresh, put the result in the state store's place, and lift the halt.

        Raises WrongRoot where the chain has another root than this program comes to: the old state store stays and the
        node stays, or is now, halted. Raises StoreError for a ledger that is damaged, or a halt of another kind.
        """
        self._check_halt()
        for left in (self._fresh, self._old):
            shutil.rmtree(left, ignore_errors=True)
        proven = self._check_ledger(progress)
        try:
            rebuilt = self._execute(proven, progress)
            self._take_over()
        except WrongRoot as error:
            self._ledger.apply([PutJournal(HaltRecord(str(error), error.header))])
            raise
        finally:
            shutil.rmtree(self._fresh, ignore_errors=True)
        self._ledger.apply([LiftHalt()])
        return rebuilt

    def _check_halt(self) -> None:
        halt = self.halt
        if halt is None:
            return
        if halt.disputed is None:
            raise StoreError(
                f"this node did not halt over a root, but because of: {halt.reason}. More than f validators have lied; "
                "no execution repairs that, the members have to"
            )
        if halt.disputed.height > self.tip + 1:
            raise StoreError(
                f"the halt disputes header {halt.disputed.height}, but the ledger ends at {self.tip}: the blocks "
                "between them are missing"
            )

    def _check_ledger(self, progress: Progress) -> Height:
        """The last height under a checked commit certificate; raises StoreError where the ledger is not a chain."""
        founding = self._home.founding
        parent, proven = founding.header, Height(0)
        for height in range(1, self.tip + 1):
            record = self._ledger.block(Height(height))
            if record is None:
                raise StoreError(f"block {height} is missing below the tip {self.tip}")
            _follows(record.header, parent.hash)
            if record.certificate is not None:
                _check_decided(record.certificate, record.header, founding)
                proven = Height(height)
            parent = record.header
            progress("checking certificates", height, self.tip)
        return proven

    def _execute(self, proven: Height, progress: Progress) -> Rebuilt:
        founding = self._home.founding
        with ExitStack() as stack:
            fresh = LmdbStateStore(self._fresh, founding.chain, self._map_size)
            stack.callback(fresh.close)
            fresh.flush(genesis_flush(self._application, founding))
            executor = Executor(founding, self._application, self._ledger, fresh)
            stack.callback(executor.close)
            for header in executor.replay(self.tip):
                progress("executing", header.height, self.tip)
            if self.halt is not None and self.halt.disputed is not None:
                self._compare_disputed(executor, self.halt.disputed)
            return Rebuilt(self.tip, fresh.height(), proven, _audit(fresh))

    def _compare_disputed(self, executor: Executor, disputed: Header) -> None:
        """The header that halted the node is the next one, or stands in the ledger and was compared there."""
        if disputed.height == self.tip + 1:
            _follows(disputed, executor.last.hash)
            executor.compare(disputed)
        elif self._ledger.committed_hash(disputed.height) != disputed.hash:
            raise StoreError(f"the halt disputes another header {disputed.height} than the ledger has")

    def _take_over(self) -> None:
        """Put the new store in the place of the old one; between the two renames a start would rebuild it too."""
        if self._home.state.exists():
            self._home.state.rename(self._old)
        self._fresh.rename(self._home.state)
        sync(self._home.data)
        shutil.rmtree(self._old, ignore_errors=True)


@contextmanager
def stopped(home: Home, application: Application) -> Iterator[StoppedNode]:
    """The node's stores while it does not run. Raises ConfigError where it runs or has no ledger, StoreError."""
    founding = home.founding
    if not home.ledger.exists():
        raise ConfigError(f"{home.ledger} is missing: there is nothing to execute; 'p2pledger start' begins it")
    with ExitStack() as stack:
        stack.enter_context(exclusive_lock(home.layout.lock))
        ledger = LmdbLedgerStore(
            home.ledger, founding.chain, home.node, founding.header.hash, home.config.node.map_gib << 30, False
        )
        stack.callback(ledger.close)
        yield StoppedNode(home, ledger, application)


def _follows(header: Header, parent: BlockHash) -> None:
    if header.parent != parent:
        raise StoreError(f"header {header.height} has parent {header.parent.hex()}, not {parent.hex()}")


def _check_decided(certificate: Certificate, header: Header, founding: Founding) -> None:
    decided = (certificate.kind, certificate.height, certificate.block_hash)
    try:
        if decided != ("commit", header.height, header.hash):
            raise InvalidInput(f"its {certificate.kind} certificate is of {certificate.height}, another block")
        check_certificate(certificate, founding.chain, founding.validators)
    except InvalidInput as error:
        raise StoreError(f"block {header.height} of the ledger is not what a quorum decided: {error}") from error


def _audit(state: LmdbStateStore) -> int:
    """The number of keys in a state store, each of them under its tree."""
    with state.snapshot() as snapshot:
        return audit_state(snapshot, root(snapshot.tree))
