"""Contracts over a state that remembers do what they do over one that is read anew each time."""

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health.application import HealthApplication
from p2pledger.health.identity_operations import (
    IdentityRekey,
    KeyRevoke,
    OrganisationKeyRotate,
    OrganisationResume,
    OrganisationSuspend,
)
from p2pledger.health.operations import (
    ConsentRevoke,
    CredentialIssue,
    CredentialRevoke,
    IdentityResume,
    IdentitySuspend,
    KeyRotate,
)
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import AccountKey
from p2pledger.state.view import StateView, Writes
from tests.unit.execution.ledger import Ledger, hash32, id16, key
from tests.unit.health.world import BERG, FOREVER_MS, SEE, TAL, WALD, World, registration

PEOPLE = ("patient", "doctor", "nurse")
KEYS = tuple(key(name) for name in (*PEOPLE, "second", "third"))
HOUSES = ((BERG, "Berg"), (TAL, "Tal"), (SEE, "See"), (WALD, "Wald"))
Step = tuple[SigningKey, tuple[Record, ...], tuple[SigningKey, ...]]


class Plain:
    """A view that has nothing but its two questions, so nothing can be remembered of it."""

    def __init__(self, state: StateView) -> None:
        self._state = state

    def get(self, wanted: bytes) -> bytes | None:
        return self._state.get(wanted)

    def scan(self, prefix: bytes, start: bytes = b"") -> Any:
        return self._state.scan(prefix, start)


class Forgetful(HealthApplication):
    """The health layer, each of whose questions goes to the state itself."""

    def opens_account(self, operations: Sequence[Record], call: Call, state: StateView) -> bool:
        return super().opens_account(operations, call, Plain(state))

    def refused(self, call: Call, state: StateView) -> Writes:
        return super().refused(call, Plain(state))

    def execute(self, operation: Any, call: Call, state: StateView) -> Outcome:
        return super().execute(operation, call, Plain(state))


def asked(world: World) -> st.SearchStrategy[Record]:
    """What may be asked for; most of it is refused, as there is nothing of the kind or somebody else must ask."""
    did = st.sampled_from(PEOPLE).map(id16)
    account = st.sampled_from(KEYS).map(lambda one: AccountKey(one.public))
    name = st.sampled_from(("one", "two", "three"))
    house = st.sampled_from(HOUSES).map(lambda one: id16(one[1]))
    box, forever = st.just(hash32("box")), st.just(FOREVER_MS)
    return st.one_of(
        name.map(world.request),
        name.map(lambda one: world.request(one, basis=None)),
        name.map(lambda one: world.consent(consent_id=id16(one))),
        st.builds(ConsentRevoke, name.map(id16), st.just("withdrawn")),
        st.builds(registration, st.sampled_from(PEOPLE), st.just("practitioner"), st.just("Tal")),
        st.builds(IdentitySuspend, did),
        st.builds(IdentityResume, did),
        st.builds(CredentialIssue, did, st.just("nurse"), box, st.just(0), forever),
        st.builds(CredentialRevoke, did, st.sampled_from(("nurse", "physician"))),
        st.builds(KeyRotate, did, account, box),
        st.builds(KeyRevoke, did, account),
        st.builds(IdentityRekey, did, account, box),
        st.builds(OrganisationKeyRotate, account, box),
        st.builds(OrganisationSuspend, house),
        st.builds(OrganisationResume, house),
    )


def steps(world: World) -> st.SearchStrategy[list[list[Step]]]:
    """Blocks of transactions."""
    senders = st.sampled_from([*KEYS, *(house for house, _ in HOUSES)])
    operations = st.lists(asked(world), min_size=1, max_size=3).map(tuple)
    cosigners = st.lists(senders, max_size=4, unique=True).map(tuple)
    return st.lists(st.lists(st.tuples(senders, operations, cosigners), min_size=1, max_size=5), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_memory_changes_no_receipt_and_no_write(data: st.DataObject) -> None:
    """Block by block, whoever is registered, suspended, given another key or refused."""
    one, other = World(), World()
    other.application = Forgetful()
    for block in data.draw(steps(one)):
        signed = [transaction(one, *step) for step in block]
        left, right = one.run(*signed), other.run(*signed)
        assert left == right
        assert not left.alarms
    assert dict(one.state.scan(b"")) == dict(other.state.scan(b""))


def transaction(ledger: Ledger, sender: SigningKey, operations: tuple[Record, ...], cosigners: Any) -> bytes:
    return ledger.signed(sender, *operations, cosigners=[one for one in cosigners if one is not sender])
