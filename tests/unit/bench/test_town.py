"""The transactions of a benchmark: really signed, in the mix that is claimed, with nonces that the chain accepts."""

from collections import Counter
from pathlib import Path

import pytest

from bench.book import ClientPlan, LanePlan, read_plan, write_plan
from bench.town import HEALTH_MIX, KINDS, Planned, Town
from p2pledger.chain.transaction import check_signatures, parse
from p2pledger.demo.cluster import Cluster
from p2pledger.health.operations import AccessRequest, RecordBatch, decode_operations
from p2pledger.primitives.errors import InvalidInput

NOW_MS = 1_800_000_000_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster.create(tmp_path_factory.mktemp("town") / "consortium", 2)


def town_of(cluster: Cluster, patients: int = 12, seed: int = 7) -> Town:
    wallets = [cluster.wallet(name) for name in cluster.names]
    return Town(cluster.founding, wallets, 3, patients, seed, NOW_MS)


def test_minimal_transactions_carry_as_many_records_as_asked(cluster: Cluster) -> None:
    """Each is a well-formed transaction of this chain whose signature holds."""
    for planned in town_of(cluster).plan("minimal", 5, 0.0, operations=10, payload_bytes=190):
        transaction = parse(planned.data)
        check_signatures(transaction)
        operations = decode_operations(transaction.envelope.operations)
        assert len(operations) == planned.operations == 10
        assert all(isinstance(one, RecordBatch) and len(one.compartments) == 11 for one in operations)


def test_the_health_mix_has_its_shares(cluster: Cluster) -> None:
    """60 access requests, 20 record batches, 10 consents, 10 directory and revocations, as drawn."""
    town = town_of(cluster)
    stock = town.stock("health", 1_000, 1.0)
    planned = list(town.plan("health", 1_000, 1.0, operations=10))
    counts = Counter(one.kind for one in planned)
    assert {one.kind for one in stock} == {"consent"}
    for kind, share in HEALTH_MIX:
        assert abs(counts[kind] - 10 * share) < 5 * (10 * share) ** 0.5
    for one in planned[:50]:
        check_signatures(parse(one.data))
        assert one.signatures == (2 if one.kind == "identity" else 1)
    access = next(one for one in planned if one.kind == "access")
    assert isinstance(decode_operations(parse(access.data).envelope.operations)[0], AccessRequest)


def test_each_sender_counts_without_gaps_and_stays_in_its_lane(cluster: Cluster) -> None:
    """Otherwise nonces would leave the window, or two processes would use the same ones."""
    used: dict[bytes, list[Planned]] = {}
    for one in town_of(cluster).plan("health", 300, 1.0):
        used.setdefault(one.account, []).append(one)
    for mine in used.values():
        assert [one.nonce for one in mine] == list(range(1, len(mine) + 1))
        assert len({one.lane for one in mine}) == 1


def test_nonces_of_what_was_never_sent_are_used_again(cluster: Cluster) -> None:
    """After a closed loop most of the pool may be left over."""
    town = town_of(cluster)
    planned = list(town.plan("minimal", 30, 0.0))
    town.take_back(planned[10:])
    sent = {one.lane: max(other.nonce for other in planned[:10] if other.lane == one.lane) for one in planned[:10]}
    first: dict[int, int] = {}
    for one in town.plan("minimal", 30, 0.0):
        first.setdefault(one.lane, one.nonce)
    assert first == {lane: nonce + 1 for lane, nonce in sent.items()}


def test_one_seed_draws_the_same(cluster: Cluster) -> None:
    """The founders' keys are their homes' own; everything else follows from the seed."""
    first, again = (list(town_of(cluster).plan("health", 50, 1.0)) for _ in range(2))
    assert first == again


def test_a_town_too_small_for_its_consents_says_so(cluster: Cluster) -> None:
    """256 is the most that one patient may have."""
    town = town_of(cluster, patients=1)
    with pytest.raises(InvalidInput, match="more patients"):
        town.stock("health", 10_000, 0.0)


def test_a_plan_comes_back_as_it_was_written(cluster: Cluster, tmp_path: Path) -> None:
    """What a load process reads is what was planned for it."""
    planned = list(town_of(cluster).plan("minimal", 3, 0.0))
    plan = ClientPlan(1, True, 5, 2.0, 1.0, 0.5, "out", 9, "home", (LanePlan(0, bytes(32), (("h", 1, bytes(32)),)),))
    write_plan(tmp_path / "plan", plan, [(7 + i, one, i / 4) for i, one in enumerate(planned)])
    read, items = read_plan(tmp_path / "plan")
    assert read == plan
    assert [(item.number, item.due_s) for item in items] == [(7, 0), (8, 0.25), (9, 0.5)]
    assert [(KINDS[item.kind], item.account, item.nonce, item.data) for item in items] == [
        (one.kind, one.account, one.nonce, one.data) for one in planned
    ]
