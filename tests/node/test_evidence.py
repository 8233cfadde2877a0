"""P14 in real processes: what one journal holds against a validator comes into all states, with a proof."""

import pytest

from p2pledger.client.ledger import open_ledger
from p2pledger.consensus.journal import EvidenceRecord
from p2pledger.consensus.messages import Prepare, Signed, statement
from p2pledger.engine.evidence import evidence_of
from p2pledger.engine.ports import PutJournal
from p2pledger.node.home import Home
from p2pledger.primitives.ids import BlockHash, Epoch, Height, View
from p2pledger.storage.ledger import LmdbLedgerStore
from tests.node.health import agree, until

pytestmark = pytest.mark.process


def contradiction(liar: Home) -> EvidenceRecord:
    """Two PREPAREs of a validator for two blocks of one height."""
    said = [Prepare(Epoch(0), View(0), Height(5), BlockHash(bytes([i]) * 32), liar.validator) for i in range(2)]
    chain = liar.founding.chain
    return EvidenceRecord(*(Signed(vote, liar.keys.consensus.sign(statement(chain, vote))) for vote in said))


def remember(witness: Home, record: EvidenceRecord) -> None:
    """Into the journal of a node that does not run."""
    founding = witness.founding
    ledger = LmdbLedgerStore(witness.ledger, founding.chain, witness.node, founding.header.hash, may_create=False)
    try:
        ledger.apply([PutJournal(record)])
    finally:
        ledger.close()


async def test_what_one_journal_holds_comes_onto_the_chain_after_a_restart(consortium):
    """The witness offers it with its node key; all nodes say since when the chain knows, and prove it to members."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    witness, liar = (Home.load(cluster.homes[name], {}) for name in cluster.names[:2])
    await cluster.stop(witness.card.name)
    record = contradiction(liar)
    remember(witness, record)
    await cluster.start(witness.card.name)
    await cluster.wait_ready()
    wallet = cluster.wallet(cluster.names[2])
    for name in cluster.names:
        async with open_ledger(cluster.founding, cluster.addresses([name]), wallet.account) as ledger:

            async def is_recorded(ledger=ledger) -> bool:
                known = (await ledger.status()).equivocations
                return [(one.organisation, one.recorded is not None) for one in known] == [(liar.card.name, True)]

            async def is_proven(ledger=ledger) -> bool:
                _, held = await ledger.evidence(liar.validator)
                return held is not None and (held.node, held.evidence) == (witness.node, evidence_of(record))

            await until(is_recorded, f"evidence on the chain of {name!r}")
            await until(is_proven, f"a proof of the evidence by {name!r}")
    await agree(cluster)
