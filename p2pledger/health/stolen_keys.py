"""A practitioner's key was stolen: the employer kills it at once, and both together put a new one in its place (F-22).

Between the two blocks nobody acts as this person. The employer's own signature is not enough for the second: another
organisation witnesses that the person was there, or whoever stole an employer's account could become any of its people
and read what patients opened to them. The new key signs as well, and the chain keeps both keys with the heights between
which they counted. A patient's key is nobody else's to revoke.
"""

from msgspec.structs import replace

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import directory, keys
from p2pledger.health.directory import KeyOwner, KeyPeriod
from p2pledger.health.events import IdentityRekeyed, KeyRevoked
from p2pledger.health.identity_operations import IdentityRekey, KeyRevoke
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.state.view import StateView


def revoke_key(operation: KeyRevoke, call: Call, state: StateView) -> Outcome:
    """Kill the current key of one of one's people. Refused: E_ROLE, E_NOT_FOUND, E_STATE (not its current key)."""
    identity = directory.require_employer(operation.did, call, state)
    if identity.key != operation.key or identity.revoked is not None:
        raise Refused(Code.E_STATE)
    revoked = replace(identity, revoked=call.height)
    period = directory.key_period(identity.did, identity.periods, state)
    assert period is not None, "every key of an identity has its period"
    return Outcome(
        writes={
            keys.identity(identity.did): encode(revoked),
            keys.key_owner(identity.key): encode(KeyOwner("identity", identity.did, call.height)),
            keys.key_period(identity.did, identity.periods): encode(replace(period, retired=call.height)),
        },
        events=[encode(KeyRevoked(identity.did, identity.key))],
    )


def rekey(operation: IdentityRekey, call: Call, state: StateView) -> Outcome:
    """A new key in place of a revoked one.

    Refused: E_NOT_FOUND, E_ROLE (not by the new key, or without the employer), E_COSIGNERS (without a witness), E_STATE
    (nothing was revoked), E_SUSPENDED, E_DUP.
    """
    identity = directory.identity_of(operation.did, state)
    if identity is None:
        raise Refused(Code.E_NOT_FOUND)
    if operation.key != call.author or not has_employer(operation, call, state):
        raise Refused(Code.E_ROLE)
    if not _has_witness(identity.organisation, call, state):
        raise Refused(Code.E_COSIGNERS)
    if identity.revoked is None:
        raise Refused(Code.E_STATE)
    if identity.is_suspended:
        raise Refused(Code.E_SUSPENDED)
    if directory.key_owner(operation.key, state) is not None:
        raise Refused(Code.E_DUP)
    number = identity.periods + 1
    renewed = replace(identity, key=operation.key, box=operation.box, revoked=None, periods=number)
    return Outcome(
        writes={
            keys.identity(identity.did): encode(renewed),
            keys.key_owner(operation.key): encode(KeyOwner("identity", identity.did)),
            keys.key_period(identity.did, number): encode(KeyPeriod(operation.key, operation.box, call.height)),
        },
        events=[encode(IdentityRekeyed(identity.did, identity.key, operation.key))],
    )


def has_employer(operation: IdentityRekey, call: Call, state: StateView) -> bool:
    """Whether the employer of this identity signed; a patient has none."""
    identity = directory.identity_of(operation.did, state)
    if identity is None or identity.kind == "patient":
        return False
    return directory.has_signed(identity.organisation, call, state)


def _has_witness(employer: bytes, call: Call, state: StateView) -> bool:
    """Whether another active organisation signed: no single key makes its owner somebody else (F-22)."""
    others = (member for member in directory.organisations(state) if member.id != employer)
    return any(member.is_active and member.account in call.cosigners for member in others)
