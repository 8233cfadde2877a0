"""A chart sealed with one-time secrets among validators that have announced their deposit keys, without a joint key."""

from dataclasses import dataclass

from p2pledger.health import deposits, release
from p2pledger.health.commitments import RecordRef, prove_record
from p2pledger.health.deposit_operations import DepositAck, DepositKey, bits_of
from p2pledger.health.deposits import DepositTable
from p2pledger.health.release import RecordOpening
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code
from p2pledger.threshold.capsule import Label
from p2pledger.threshold.key_release import ShareHolder
from p2pledger.threshold.one_time import OneTime, OneTimeHolder
from p2pledger.threshold.participant import seeded
from p2pledger.threshold.sealing import BoxSecret
from tests.unit.execution.ledger import Ledger, id16
from tests.unit.health.ceremonies import Keeper, keepers_of
from tests.unit.health.charts import Chart
from tests.unit.health.world import PID


def secret_of(keeper: Keeper, name: str = "deposit") -> BoxSecret:
    """The deposit key of a validator in tests."""
    return BoxSecret(sha256(name.encode() + keeper.validator))


def announce(ledger: Ledger, keepers: list[Keeper]) -> DepositTable:
    """All of them announce; the table that follows."""
    for keeper in keepers:
        assert ledger.submit(keeper.node, DepositKey(secret_of(keeper).public)) == Code.OK
    table = deposits.newest_table(ledger.state)
    assert table is not None
    return table


@dataclass
class OneTimeChart(Chart):
    """Berg's seven allergies and one note, each with a sharing of its own; nobody has acknowledged anything yet."""

    def __post_init__(self) -> None:
        self.random = seeded(sha256(self.random_name.encode()))
        self.keepers = keepers_of(self.world)
        self.table = announce(self.world, self.keepers)
        self.content_keys = [self.random(32) for _ in range(self.n)]
        self.capsules = self.sealed(self.table.release)
        self.commit()

    def sealed(self, among: OneTime) -> list[bytes]:
        """A capsule for each record."""
        return [among.wrap(content, self.label(index), self.random) for index, content in enumerate(self.content_keys)]

    def label(self, index: int) -> Label:
        return release.label_of(RecordRef(self.batch_id, index), PID, id16("Berg"), self.world.chain, 0)

    def opening(self, index: int) -> RecordOpening:
        return RecordOpening(self.batch_id, prove_record(self.leaves(), index), 0, self.capsules[index])

    def holder(self, keeper: Keeper) -> OneTimeHolder:
        return OneTimeHolder(self.table.release, secret_of(keeper))

    @property
    def holders(self) -> list[ShareHolder]:
        return [self.holder(keeper) for keeper in self.keepers]

    def acknowledge(self, keeper: Keeper, *indices: int, table: int | None = None) -> Code:
        """A validator says that its shares are good; of all records where none is named."""
        number = self.table.number if table is None else table
        said = bits_of(indices or range(self.n))
        return self.world.submit(keeper.node, DepositAck(self.batch_id, number, said))

    def deposit(self, count: int = 3) -> None:
        """So many of them acknowledge everything."""
        for keeper in self.keepers[:count]:
            assert self.acknowledge(keeper) == Code.OK
