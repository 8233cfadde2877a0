"""Emergency capsules: what a patient wants a house to know even when there is no ledger to ask (F-17, health rule 0.8).

1. The patient chooses a summary, signs it, and seals it to the box key of one organisation.
2. The house keeps it, after it has asked the chain whether the key is the patient's.
3. Without a quorum one of its people opens it: first an entry is signed, numbered, linked to the entry before and made
   durable; only then is anything decrypted.
4. When the quorum is back, `anchor` brings the entries onto the chain in their order: a line of the patient's log,
   an alert, a review that is due. While an entry is older than a day and not anchored, nothing further is opened.

That a house writes its entries down rests on the house: whoever has its box key can open one without this program.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from p2pledger.client.keyring import Persona
from p2pledger.client.ledger import LedgerClient
from p2pledger.client.sealing import BoxKey, decrypt, encrypt, new_key, seal_to
from p2pledger.health import keys
from p2pledger.health.commitments import SALT_BYTES, commit
from p2pledger.health.directory import Identity
from p2pledger.health.emergency import ANCHOR_WITHIN_MS
from p2pledger.health.emergency_operations import EmergencyAnchor, OfflineOpening, sign_opening
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import Domain, sha256, signed_bytes, verify
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Refused, Rejected
from p2pledger.primitives.ids import AccountKey, Bytes16, Bytes32, ChainId, Millis, Signature
from p2pledger.storage.files import create_private, make_private_folder, put_private, read_private, sync_folder

SUMMARY_BYTES_MAX = 256 * 1024
_FILE_BYTES_MAX = 2 * SUMMARY_BYTES_MAX


class EmergencyCapsule(Record, frozen=True):
    """A summary for one house; everybody can see for whom and of when it is, the house alone what it says."""

    chain: ChainId
    pid: Bytes16
    organisation: Bytes16
    made_ms: Millis
    patient: AccountKey
    """Whose signature is inside."""
    key: bytes
    """The content key, sealed to the house's box key."""
    nonce: Annotated[bytes, Meta(min_length=24, max_length=24)]
    ciphertext: bytes

    @property
    def hash(self) -> Bytes32:
        """What an opening names it by."""
        return Bytes32(sha256(encode(self)))


class _Summary(Record, frozen=True):
    """What is sealed."""

    content: Annotated[bytes, Meta(max_length=SUMMARY_BYTES_MAX)]
    signature: Signature


class _Entry(Record, frozen=True):
    """An opening as the house keeps it."""

    opening: OfflineOpening
    signature: Signature
    salt: Bytes32
    """Opens the commitment to the reason."""
    reason: Annotated[str, Meta(max_length=4096)]


def _signed_summary(capsule: EmergencyCapsule, content: bytes) -> bytes:
    about = encode((capsule.pid, capsule.organisation, capsule.made_ms, content))
    return signed_bytes(Domain.EMERGENCY_CAPSULE, capsule.chain, about)


def _context(capsule: EmergencyCapsule) -> bytes:
    return encode((capsule.chain, capsule.pid, capsule.organisation, capsule.made_ms, capsule.patient, capsule.key))


def seal_summary(
    patient: Persona, organisation: bytes, chain: ChainId, box: bytes, content: bytes, made_ms: int
) -> bytes:
    """The capsule of a summary for a house whose box key is `box`. Raises InvalidInput for an empty or too long one."""
    if not 0 < len(content) <= SUMMARY_BYTES_MAX:
        raise InvalidInput(f"a summary of {len(content)} bytes; it has 1 to {SUMMARY_BYTES_MAX}")
    key = new_key()
    blank = EmergencyCapsule(
        chain,
        Bytes16(patient.did),
        Bytes16(organisation),
        Millis(made_ms),
        patient.account,
        seal_to(box, key),
        bytes(24),
        b"",
    )
    signature = patient.signing.sign(_signed_summary(blank, content))
    nonce, ciphertext = encrypt(key, encode(_Summary(content, signature)), _context(blank))
    made = EmergencyCapsule(
        blank.chain, blank.pid, blank.organisation, blank.made_ms, blank.patient, blank.key, nonce, ciphertext
    )
    return encode(made)


def read_capsule(data: bytes) -> EmergencyCapsule:
    """What everybody can read of one; raises InvalidInput."""
    return decode(EmergencyCapsule, data, _FILE_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Shown:
    """An opened summary, and the entry that says so."""

    content: bytes
    made_ms: int
    entry: OfflineOpening


class EmergencyShelf:
    """A house's emergency capsules and its journal of openings, in a folder nobody else may enter.

    capsules/<pid>         the newest of each patient
    openings/<number>      one entry each, written once
    anchored               how many of them the chain has
    """

    def __init__(self, folder: Path, chain: ChainId, organisation: bytes, box: BoxKey) -> None:
        """Raises ConfigError where the folder is not ours alone."""
        self._folder, self._chain, self._organisation, self._box = folder, chain, organisation, box
        for each in (folder, folder / "capsules", folder / "openings"):
            make_private_folder(each)

    def __repr__(self) -> str:
        return f"EmergencyShelf({self._folder})"

    # Keeping

    async def keep(self, ledger: LedgerClient, data: bytes) -> EmergencyCapsule:
        """Keep a capsule for us, once the chain has proven whose key has signed it; an older one goes.

        Raises InvalidInput for one of another house or chain, one that is older than what is kept, or one that does not
        open; ProofError where the patient on the chain has another key.
        """
        capsule = read_capsule(data)
        self._content(capsule)
        path = self._folder / "capsules" / capsule.pid.hex()
        if path.exists() and read_capsule(read_private(path, _FILE_BYTES_MAX)).made_ms > capsule.made_ms:
            raise InvalidInput(f"a newer capsule of patient {capsule.pid.hex()} is kept already")
        height, value = await ledger.state(keys.identity(capsule.pid))
        identity = None if value is None else decode(Identity, value, limits.STATE_VALUE_BYTES_MAX)
        if identity is None or identity.kind != "patient" or identity.key != capsule.patient:
            raise ProofError(
                f"checkpoint {height}: {capsule.patient.hex()} is not the key of patient {capsule.pid.hex()}"
            )
        put_private(path, data)
        sync_folder(path.parent)
        return capsule

    def kept(self) -> list[EmergencyCapsule]:
        """All that are here, by patient."""
        folder = self._folder / "capsules"
        names = sorted(path.name for path in folder.iterdir() if len(path.name) == 32)
        return [read_capsule(read_private(folder / name, _FILE_BYTES_MAX)) for name in names]

    # Opening

    def open(self, pid: bytes, reader: Persona, reason: str, now_ms: int | None = None) -> Shown:
        """Write the entry, then open: durable before shown.

        Raises Rejected(E_NOT_FOUND) without a capsule, Rejected(E_OFFLINE_UNANCHORED) while an entry should have been
        anchored long ago, InvalidInput without a reason or for a reader of another house, StoreError.
        """
        if not reason.strip():
            raise InvalidInput("an emergency opening needs a written reason")
        if reader.organisation != self._organisation:
            raise InvalidInput(f"reader {reader.did.hex()} is not of house {self._organisation.hex()}")
        moment = int(time.time() * 1000) if now_ms is None else now_ms
        self._demand_anchored(moment)
        try:
            capsule = read_capsule(read_private(self._folder / "capsules" / pid.hex(), _FILE_BYTES_MAX))
        except FileNotFoundError as error:
            raise Rejected(Code.E_NOT_FOUND, f"no emergency capsule of patient {pid.hex()}") from error
        entry = self._write_entry(capsule, reader, reason, moment)
        return Shown(self._content(capsule), capsule.made_ms, entry.opening)

    def _write_entry(self, capsule: EmergencyCapsule, reader: Persona, reason: str, now_ms: int) -> _Entry:
        entries = self._entries()
        salt = secrets.token_bytes(SALT_BYTES)
        opening = OfflineOpening(
            organisation=Bytes16(self._organisation),
            number=len(entries) + 1,
            previous=entries[-1].opening.hash if entries else Bytes32(bytes(32)),
            access_id=Bytes16(secrets.token_bytes(16)),
            pid=capsule.pid,
            capsule=capsule.hash,
            opened_ms=Millis(now_ms),
            reader=reader.account,
            reason_commit=Bytes32(commit(salt, "text/plain", reason.encode())),
        )
        entry = _Entry(opening, sign_opening(reader.signing, self._chain, opening), Bytes32(salt), reason)
        create_private(self._opening(opening.number), encode(entry))  # two at once: the second one fails, and says so
        return entry

    def _content(self, capsule: EmergencyCapsule) -> bytes:
        if (capsule.chain, capsule.organisation) != (self._chain, self._organisation):
            raise InvalidInput(f"the capsule is for house {capsule.organisation.hex()} of chain {capsule.chain.hex()}")
        data = decrypt(self._box.open(capsule.key), capsule.nonce, capsule.ciphertext, _context(capsule))
        summary = decode(_Summary, data, _FILE_BYTES_MAX)
        if not verify(capsule.patient, _signed_summary(capsule, summary.content), summary.signature):
            raise InvalidInput(f"the summary of patient {capsule.pid.hex()} is not signed by its key")
        return summary.content

    # Anchoring

    def openings(self) -> list[OfflineOpening]:
        """All entries in order; raises InvalidInput where the journal has a gap or a changed entry."""
        return [entry.opening for entry in self._entries()]

    def unanchored(self) -> list[OfflineOpening]:
        """Those that the chain has not confirmed yet."""
        return self.openings()[self._anchored() :]

    async def anchor(self, ledger: LedgerClient, done: Callable[[OfflineOpening], None] = lambda _: None) -> int:
        """Bring all entries that are not there onto the chain, oldest first, as the house; how many.

        Begun anew after a crash it goes on: what the chain has already, it says (E_DUP). Raises Refused, Rejected,
        Unavailable as `LedgerClient.submit` does.
        """
        entries = self._entries()
        anchored = self._anchored()
        for entry in entries[anchored:]:
            try:
                await ledger.submit(EmergencyAnchor(entry.opening, entry.signature))
            except (Refused, Rejected) as error:
                if error.code is not Code.E_DUP:
                    raise
            put_private(self._folder / "anchored", str(entry.opening.number).encode())
            sync_folder(self._folder)
            done(entry.opening)
        return len(entries) - anchored

    def _demand_anchored(self, now_ms: int) -> None:
        late = [one for one in self.unanchored() if now_ms - one.opened_ms > ANCHOR_WITHIN_MS]
        if late:
            raise Rejected(
                Code.E_OFFLINE_UNANCHORED,
                f"{len(late)} emergency openings are older than {ANCHOR_WITHIN_MS // 3_600_000} h, not anchored, "
                f"the first is number {late[0].number}; run: p2pledger emergency anchor",
            )

    def _anchored(self) -> int:
        try:
            text = read_private(self._folder / "anchored", 32)
        except FileNotFoundError:
            return 0
        if not text.isdigit():
            raise InvalidInput(f"{self._folder / 'anchored'} holds {text!r}, not a number")
        return int(text)

    def _entries(self) -> list[_Entry]:
        numbers = sorted(int(path.name) for path in (self._folder / "openings").iterdir() if path.name.isdigit())
        entries = [self._entry(number) for number in numbers]
        previous = bytes(32)
        for place, entry in enumerate(entries, start=1):
            if (entry.opening.number, entry.opening.previous) != (place, previous):
                raise InvalidInput(f"the journal of openings breaks off at number {place}: an entry is gone or changed")
            previous = entry.opening.hash
        return entries

    def _entry(self, number: int) -> _Entry:
        return decode(_Entry, read_private(self._opening(number), _FILE_BYTES_MAX), _FILE_BYTES_MAX)

    def _opening(self, number: int) -> Path:
        return self._folder / "openings" / f"{number:08d}"
