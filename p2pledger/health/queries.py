"""What a node's client port asks of the health state: pure functions over a view."""

from itertools import islice

from p2pledger.health import break_glass, directory, erasure, guardian_state, keys, log, records, recovery, release_log
from p2pledger.health.guardian_operations import guardian_commit
from p2pledger.primitives.codec import encode
from p2pledger.primitives.ids import AccountKey, Bytes16
from p2pledger.state.view import StateView

STRANGER = "stranger"


def role_of(account: AccountKey, state: StateView) -> str:
    """`organisation`, the kind of the identity whose current key this is, or `stranger`."""
    if directory.organisation_by_key(account, state) is not None:
        return "organisation"
    identity = directory.identity_by_key(account, state)
    return STRANGER if identity is None else identity.kind


def identity_of(account: AccountKey, state: StateView) -> tuple[str, Bytes16 | None]:
    """(role, id): the organisation's id, the identity's did (a patient's pid), or None for a stranger."""
    organisation = directory.organisation_by_key(account, state)
    if organisation is not None:
        return "organisation", organisation.id
    identity = directory.identity_by_key(account, state)
    return (STRANGER, None) if identity is None else (identity.kind, identity.did)


def pid_owner(pid: bytes, state: StateView) -> AccountKey | None:
    """The current key of a patient, or None where there is no such patient."""
    identity = directory.identity_of(pid, state)
    return identity.key if identity is not None and identity.kind == "patient" else None


def custodian_of(pid: bytes, state: StateView) -> Bytes16 | None:
    """The organisation that keeps a patient's records under this pid."""
    identity = directory.identity_of(pid, state)
    return identity.organisation if identity is not None and identity.kind == "patient" else None


def may_see_patient(account: AccountKey, pid: bytes, state: StateView) -> bool:
    """Whether this key may ask for the log and the consents of a pid: the patient itself, and organisations (F-08)."""
    return may_see_all(account, state) or pid_owner(pid, state) == account


def may_see_guardians(account: AccountKey, pid: bytes, salt: bytes | None, state: StateView) -> bool:
    """Whether this key may ask who guards a pid: as for its log, and for those who guard it or are to be it.

    A guardian shows by its salt which commitment is its own; that of guardians to come and of a recovery's count, too.
    """
    if may_see_patient(account, pid, state):
        return True
    owner = directory.key_owner(account, state)
    if owner is not None and owner.id == pid and recovery.is_recovering(account, state):
        return True
    held = guardian_state.guardianship_of(pid, state)
    if held is None or salt is None:
        return False
    started = None if held.pending is None else guardian_state.recovery_of(held.pending, state)
    circles = [held.terms, *(one.terms for one in (held.proposed, started) if one is not None)]
    commit = guardian_commit(pid, salt, account)
    return any(commit in terms.guardians for terms in circles)


def guardianship(pid: bytes, identifier: bytes | None, state: StateView) -> tuple[bytes, bytes | None] | None:
    """(Guardianship, one of its recoveries) as state values; without an id the recovery that waits."""
    data = state.get(keys.guardianship(pid))
    if data is None:
        return None
    held = guardian_state.guardianship_of(pid, state)
    wanted = identifier if identifier is not None or held is None else held.pending
    found = None if wanted is None else guardian_state.recovery_of(wanted, state)
    return data, None if found is None or found.pid != pid else encode(found)


def may_see_all(account: AccountKey, state: StateView) -> bool:
    """Whether this key may see what concerns any patient: the key of an active organisation (F-08)."""
    return directory.organisation_by_key(account, state) is not None and directory.may_act(account, state)


def may_read_state(account: AccountKey, key: bytes, state: StateView) -> bool:
    """Whether this key may ask for a state value with its proof.

    Members may ask for everything: they validate it. Whoever has or had an identity may ask who the members are, for
    joint keys and deposit tables, for practitioners and their credentials, and for its own identity: its DID document
    must be there for it, also after a rotation. A patient may ask for the batches of its own records (F-12). Of
    patients nobody else learns anything this way (F-29).
    """
    if is_active_member(account, state):
        return True
    if key[:1] == keys.BATCH:
        batch = records.batch_of(key[1:], state)
        return batch is not None and pid_owner(batch.terms.pid, state) == account
    owner = directory.key_owner(account, state)
    if owner is None:
        return False
    if key[:1] in (keys.ORGANISATION, keys.JOINT_KEY, keys.NEWEST_KEY, keys.DEPOSIT_TABLE, keys.NEWEST_TABLE):
        return True
    if key[:1] == keys.KEY_OWNER:
        return key[1:] == account
    if key[:1] not in (keys.IDENTITY, keys.CREDENTIAL, keys.KEY_PERIOD):
        return False
    about = key[1:17]
    if about == owner.id or directory.organisation_of(about, state) is not None:
        return True
    identity = directory.identity_of(about, state)
    return identity is not None and identity.kind != "patient"


def is_active_member(account: AccountKey, state: StateView) -> bool:
    """Whether this key speaks for a member that is not suspended."""
    organisation = directory.organisation_by_key(account, state)
    return organisation is not None and organisation.is_active


def organisations(state: StateView) -> list[directory.Organisation]:
    """All organisations, by id."""
    return list(directory.organisations(state))


def organisation_name(identifier: bytes, state: StateView) -> str | None:
    """The public name of an organisation."""
    organisation = directory.organisation_of(identifier, state)
    return None if organisation is None else organisation.name


def consents_of(pid: bytes, state: StateView) -> tuple[bytes, ...]:
    """The state values of a patient's consents, ended ones too; `consent.decode_consent` reads them."""
    return tuple(data for _, data in state.scan(keys.consents(pid)))


def pending_reviews(state: StateView, most: int = 1_000) -> tuple[bytes, ...]:
    """Emergency accesses without a review, the first due first; `break_glass.decode_broken_glass` reads them (F-15)."""
    return tuple(encode(used) for used in islice(break_glass.pending(state), most))


ERASURES_BYTES_MAX = 4 * 1024 * 1024


def erasures(pid: bytes | None, state: StateView) -> tuple[bytes, ...]:
    """Requests for erasure about a patient, or those that are not finished, the first due first; 4 MiB of them.

    `erasure.decode_erasure` reads them (F-26).
    """
    found = erasure.unfinished(state) if pid is None else erasure.erasures_of(pid, state)
    room = ERASURES_BYTES_MAX
    kept = []
    for data in map(encode, found):
        room -= len(data)
        if room < 0:
            break
        kept.append(data)
    return tuple(kept)


def log_head_key(pid: bytes) -> bytes:
    """The state key that a proof of the log's head is about."""
    return keys.log_head(pid)


def log_lines(pid: bytes, state: StateView, first: int = 1, last: int | None = None) -> tuple[bytes, ...]:
    """The lines `first` to `last` of a patient's log as hashed; `log.check_lines` reads and checks them."""
    return tuple(log.lines(pid, state, first, last))


def log_page(pid: bytes, state: StateView, first: int, bytes_max: int) -> tuple[bytes, ...]:
    """The lines from `first` on that fit into so many bytes; at least one where there is one."""
    return tuple(log.page(pid, state, first, bytes_max))


def release_page(pid: bytes, state: StateView, first: int, bytes_max: int) -> tuple[bytes, ...]:
    """The reports about released keys from `first` on that fit; at least one where there is one."""
    return tuple(release_log.page(pid, state, first, log.head(pid, state).releases, bytes_max))


def log_line(pid: bytes, sequence: int, state: StateView) -> bytes | None:
    """One line of a patient's log, as hashed."""
    return log.line_at(pid, sequence, state)


def log_head(pid: bytes, state: StateView) -> log.LogHead:
    """Where a patient's log ends in this view."""
    return log.head(pid, state)
