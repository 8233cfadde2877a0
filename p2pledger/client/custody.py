"""A custodian's work with records: seal to the patient the chain knows, keep, then commit."""

from collections.abc import Collection
from functools import partial

import trio

from p2pledger.client.depositing import newest_table
from p2pledger.client.ingest import Capsules, Prepared, batch_operation
from p2pledger.client.ledger import LedgerClient, Receipt
from p2pledger.client.records import Patient
from p2pledger.client.vault import Progress, Vault, names_of, silent
from p2pledger.health import keys
from p2pledger.health.commitments import RecordRef
from p2pledger.health.directory import Identity
from p2pledger.health.erasure_operations import HolderRegister
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.records import Batch
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Refused, Rejected, Unavailable
from p2pledger.primitives.ids import Bytes16
from p2pledger.vault.replicas import Replicas


async def patient_of(ledger: LedgerClient, pid: bytes, box: bytes | None = None) -> Patient:
    """The patient with the box key that the chain proves; members only.

    A new patient is proven from the next checkpoint on; until then `box`, from the patient's own card, is taken.
    Raises InvalidInput where the card says another key than the chain, or the pid is no patient's, and
    Rejected(E_NOT_FOUND) where neither knows the patient.
    """
    _, data = await ledger.state(keys.identity(pid))
    if data is None:
        if box is None:
            raise Rejected(Code.E_NOT_FOUND, f"no patient {pid.hex()} at the last checkpoint")
        return Patient(pid, box)
    identity = decode(Identity, data, limits.STATE_VALUE_BYTES_MAX)
    if identity.kind != "patient":
        raise InvalidInput(f"{pid.hex()} is a {identity.kind}, not a patient")
    if box not in (None, identity.box):
        raise InvalidInput(f"box key {box.hex() if box else ''} is not the one of patient {pid.hex()} on the chain")
    return Patient(pid, identity.box)


async def register_holders(ledger: LedgerClient, custodian: bytes, keepers: Collection[bytes]) -> list[bytes]:
    """Enter those who keep copies for us and are not entered yet, so that they certify erasures (F-26); who that were.

    To be done before the first copy leaves. Raises what `LedgerClient.submit` raises: Refused(E_QUOTA, E_NOT_FOUND).
    """
    entered = []
    for keeper in sorted(keepers):
        _, data = await ledger.state(keys.holder(custodian, keeper))
        if data is not None:
            continue
        try:
            await ledger.submit(HolderRegister(Bytes16(custodian), Bytes16(keeper), True))
        except Refused as error:
            if error.code is not Code.E_DUP:  # since the checkpoint
                raise
        else:
            entered.append(keeper)
    return entered


async def keep_and_commit(
    ledger: LedgerClient,
    vault: Vault,
    prepared: Prepared,
    progress: Progress = silent,
    replicas: Replicas | None = None,
) -> Receipt:
    """Keep a batch, with its copies elsewhere (F-09), and then commit to it on the chain (F-35).

    Where a crash came in between, or too few copies were durable, doing it again commits to what was kept. Raises
    Refused or Rejected with E_DUP where the batch is on the chain already, Unavailable where copies are missing, and
    what `Vault.put_batch` and `LedgerClient.submit` raise.
    """
    batch_id = prepared.operation.batch_id
    operation = prepared.operation
    if vault.has_batch(batch_id):
        operation = batch_operation(await trio.to_thread.run_sync(vault.manifest, batch_id))
    else:
        keep = partial(vault.put_batch, batch_id, prepared.sealed_manifest, prepared.objects, progress)
        await trio.to_thread.run_sync(keep)
    if replicas is not None:
        manifest = await trio.to_thread.run_sync(vault.manifest, batch_id)
        names = [name for entry in manifest.entries for name in names_of(entry)]
        await replicas.keep([*names, batch_id])
    return await ledger.submit(operation)


async def capsules_of(ledger: LedgerClient) -> Capsules | None:
    """What seals to the newest joint key; None: the chain has none at its last checkpoint. Members only."""
    _, newest = await ledger.state(keys.NEWEST_KEY)
    if newest is None:
        return None
    _, data = await ledger.state(keys.joint_key(decode(int, newest, 9)))
    if data is None:
        raise ProofError(f"key epoch {decode(int, newest, 9)} is the newest, and the chain has no key of it")
    return Capsules.to_key(decode(ActiveKey, data, limits.STATE_VALUE_BYTES_MAX).key, ledger.founding.chain)


async def one_time_of(ledger: LedgerClient) -> Capsules:
    """What shares each key by itself among the validators, to whom it will have to be deposited.

    Raises Unavailable while too few have announced a key, InvalidInput where we could not show it to enough of them.
    """
    table = await newest_table(ledger)
    if table is None or not table.is_usable:
        standing = 0 if table is None else len(table.holders)
        raise Unavailable(
            f"E_UNAVAILABLE: {standing} validators have announced a deposit key at the last checkpoint, "
            f"{'n - f' if table is None else table.threshold} are needed; their nodes do it by themselves"
        )
    known = {node.key for node in ledger.nodes}
    cards = [card for card in ledger.founding.genesis.cards if card.validator in table.holders]
    missing = [card.name for card in cards if card.node not in known]
    if len(cards) - len(missing) < table.threshold:
        raise InvalidInput(
            f"{table.threshold} validators must be shown their shares, and the nodes of {', '.join(missing)} are not "
            "known here: say where they are with --node, each"
        )
    return Capsules.one_time(table, ledger.founding.chain)


async def committed_root(ledger: LedgerClient, ref: RecordRef) -> bytes:
    """The proven root of a record's batch; members only. Raises Rejected(E_NOT_FOUND)."""
    height, data = await ledger.state(keys.batch(ref.batch_id))
    if data is None:
        raise Rejected(Code.E_NOT_FOUND, f"no batch {ref.batch_id.hex()} on the chain at checkpoint {height}")
    return decode(Batch, data, limits.STATE_VALUE_BYTES_MAX).terms.root
