"""Writes guardians.json: run once when a format changes, `python -m tests.vectors.generate_guardians`.

From fixed seeds: how a patient's set commits to guardians, what guardians sign, and the operations that carry it.
"""

import json
from pathlib import Path
from typing import Any

from p2pledger.client.guardians import recovery_id
from p2pledger.client.keyring import Wallet
from p2pledger.health.guardian_operations import (
    Freeze,
    GuardianSet,
    RecoveryFinalize,
    RecoveryStart,
    RecoveryVeto,
    Unfreeze,
    approve,
    freeze_bytes,
    guardian_commit,
    recovery_bytes,
    sorted_commits,
    unfreeze_bytes,
)
from p2pledger.primitives.codec import encode
from p2pledger.primitives.ids import AccountKey, Bytes16, ChainId, Millis
from tests.unit.execution.ledger import hash32, id16

PATH = Path(__file__).with_name("guardians.json")
CHAIN, PID, ORGANISATION = ChainId(hash32("chain")), id16("patient"), id16("custodian")
UNTIL_MS = Millis(1_800_000_000_000)


def vectors() -> dict[str, Any]:
    """Everything, as hexadecimal."""
    salts = {name: hash32(f"salt of {name}") for name in ("aunt", "brother")}
    keys = {name: Wallet(hash32(name)).guardian_keys(PID, salt)[0] for name, salt in salts.items()}
    commits = {name: guardian_commit(PID, salts[name], keys[name].public) for name in keys}
    new = Wallet(hash32("new wallet")).known_as(ORGANISATION, PID).at(ORGANISATION)
    recovery = Bytes16(recovery_id(PID, new.account))
    messages = {
        "recover": recovery_bytes(CHAIN, PID, recovery, new.account, new.box.public, UNTIL_MS),
        "freeze": freeze_bytes(CHAIN, PID, UNTIL_MS),
        "unfreeze": unfreeze_bytes(CHAIN, PID, UNTIL_MS),
    }
    given = {what: tuple(approve(keys[name], salts[name], data) for name in keys) for what, data in messages.items()}
    operations = {
        "set": GuardianSet(PID, 2, sorted_commits(list(commits.values())), 259_200_000, hash32("capsule"), 1),
        "start": RecoveryStart(PID, recovery, new.account, new.box.public, UNTIL_MS, given["recover"], False),
        "veto": RecoveryVeto(PID, recovery),
        "finalize": RecoveryFinalize(PID, recovery),
        "freeze": Freeze(PID, UNTIL_MS, given["freeze"]),
        "unfreeze": Unfreeze(PID, UNTIL_MS, given["unfreeze"]),
    }
    return {
        "chain": CHAIN.hex(),
        "pid": PID.hex(),
        "until_ms": int(UNTIL_MS),
        "guardians": {
            name: {
                "wallet": hash32(name).hex(),
                "salt": salts[name].hex(),
                "key": AccountKey(keys[name].public).hex(),
                "commitment": commits[name].hex(),
            }
            for name in keys
        },
        "new": {"key": new.account.hex(), "box": new.box.public.hex(), "recovery": recovery.hex()},
        "messages": {what: data.hex() for what, data in messages.items()},
        "signatures": {what: [one.signature.hex() for one in some] for what, some in given.items()},
        "operations": {what: encode((operation,)).hex() for what, operation in operations.items()},
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2) + "\n")
