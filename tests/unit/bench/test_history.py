"""Chains made offline: what nodes find in their homes is what they would have agreed on."""

import os
from pathlib import Path

import pytest

from bench.history import BLOCK, History
from bench.town import Town
from p2pledger.chain.batch import check_batch, parse_batch
from p2pledger.consensus.certificates import check_certificate
from p2pledger.demo.cluster import Cluster
from p2pledger.health.application import HealthApplication
from p2pledger.node.home import Home
from p2pledger.node.node import opened_stores
from p2pledger.node.resync import stopped
from p2pledger.primitives.errors import Unavailable
from p2pledger.primitives.ids import Height


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster.create(tmp_path / "consortium", 4)


def town_of(cluster: Cluster) -> Town:
    wallets = [cluster.wallet(name) for name in cluster.names]
    return Town(cluster.founding, wallets, 5, 8, 7, cluster.founding.header.time_ms)


def test_every_home_holds_the_same_chain_with_everything_that_a_resync_checks(cluster: Cluster) -> None:
    """Certificates, signatures, roots and the state of a fresh execution; nothing is left to execute at a start."""
    town, homes = town_of(cluster), list(cluster.homes.values())
    with History(homes) as history:
        people = list(history.extend(one.data for one in town.entering()))[-1]
        counts = list(history.extend(one.data for one in town.plan("minimal", BLOCK + 1, 0.0)))
    assert counts == [people + BLOCK, people + BLOCK + 1]
    founding, tips = cluster.founding, set()
    for path in homes:
        home = Home.load(path, os.environ)
        with opened_stores(home) as stores:
            assert stores.ledger.tip() == stores.state.height() == 4
            tips.add(stores.ledger.committed_hash(Height(4)))
        with stopped(home, HealthApplication()) as node_at_rest:
            assert node_at_rest.damage() is None
            rebuilt = node_at_rest.rebuild(lambda what, done, total: None)
            assert (rebuilt.height, rebuilt.proven) == (4, 4)
    assert len(tips) == 1
    with opened_stores(Home.load(homes[0], os.environ)) as stores:
        record = stores.ledger.block(Height(2))
        assert record is not None and record.certificate is not None
        check_certificate(record.certificate, founding.chain, founding.validators)
        body = stores.ledger.body(record.header.batches[0])
        assert body is not None
        assert check_batch(founding.chain, parse_batch(body))


def test_what_the_contracts_refuse_is_no_history(cluster: Cluster) -> None:
    """A prefill with failed transactions would measure something else; strangers fail."""
    town = town_of(cluster)
    with pytest.raises(Unavailable, match="refused"), History(list(cluster.homes.values())) as history:
        list(history.extend(one.data for one in town.plan("minimal", 3, 0.0)))
