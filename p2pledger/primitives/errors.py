"""Who is to blame decides the type of an error; what the ledger refuses has a code.

Codes are part of the chain (receipts carry their numbers), so a number is never reused or renamed.
"""

from enum import IntEnum


class P2PLedgerError(Exception):
    """The root of every error this package raises on purpose."""


class InvalidInput(P2PLedgerError):
    """A caller's input breaks a rule; the text names the value and the rule."""


class ConfigError(P2PLedgerError):
    """A home, key file or configuration that a node must not start with."""


class Unavailable(P2PLedgerError):
    """Not now: full, catching up, or without a quorum. The same request may succeed later."""


class Unreachable(Unavailable):
    """No node answers at the address; nothing is known about the ledger. (The command line has a status for it.)"""


class ProofError(P2PLedgerError):
    """A proof does not show what it claims."""


class StoreError(P2PLedgerError):
    """A store could not make something durable, or holds what it must not hold. The node stops."""


class Divergence(P2PLedgerError):
    """The committed chain says something else than this node's own execution (P22)."""


class PeerFault(P2PLedgerError):
    """A peer broke the protocol; its session ends."""

    def __init__(self, peer: bytes, reason: str) -> None:
        super().__init__(f"peer {peer[:4].hex()}: {reason}")
        self.peer = peer
        self.reason = reason


class Code(IntEnum):
    """Why a transaction failed, an access was denied or a submission was turned away."""

    OK = 0
    # Envelope and admission
    E_FORMAT = 1
    E_TOO_LARGE = 2
    E_SIG = 3
    E_CHAIN = 4
    E_NONCE = 5
    E_TX_EXPIRED = 6
    E_UNKNOWN_SENDER = 7
    E_UNKNOWN_KIND = 8
    E_COSIGNERS = 9
    E_BUSY = 10
    E_ALONE = 11
    E_INTERNAL = 12
    # Directory
    E_DUP = 20
    E_ROLE = 21
    E_NOT_FOUND = 22
    E_STATE = 23
    E_NOT_OWNER = 24
    E_UNKNOWN_ACTOR = 25
    E_CREDENTIAL = 26
    E_SUSPENDED = 27
    # Consent and access, in the order of precedence of docs/protocol.md and health rule 3.4
    E_NO_CONSENT = 40
    E_REVOKED = 41
    E_EXPIRED = 42
    E_NOT_YET = 43
    E_ACTOR = 44
    E_PURPOSE = 45
    E_SCOPE = 46
    E_LABEL = 47
    E_CONSENT_INCOMPLETE = 48
    E_USES = 49
    E_BTG_FORBIDDEN = 50
    E_POP = 51
    E_QUOTA = 52
    E_CAPACITY = 53
    E_UNENFORCEABLE = 54
    E_DECEASED = 55
    E_OFFLINE_UNANCHORED = 58
    # Records
    E_FHIR_INVALID = 60
    E_COMMIT_MISMATCH = 61
    E_ERASED = 62
    E_FROZEN = 63
    E_UNAVAILABLE = 67
    # Keys that open through shares
    E_DEAL = 85
    E_STALE = 86
    E_KEY_EPOCH = 87
    E_CAPSULE = 88
    E_NO_SHARE = 89
    # Guardians and recovery
    E_THRESHOLD = 96
    E_TIMELOCK = 97
    E_GUARDIANS = 98
    E_APPROVAL = 99
    E_VETO = 100
    # Erasure
    E_HOLDER = 101
    E_BASIS = 102
    # The ledger's own operations
    E_EVIDENCE = 70
    # Pruning
    E_HORIZON = 80


class Refused(P2PLedgerError):
    """A rule of the application says no: an ordinary answer, written into the receipt as its code."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


class Rejected(InvalidInput):
    """A transaction that is not even worth ordering: the code for the client, the words for its log."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(f"{code.name}: {detail}")
        self.code = code
        self.detail = detail
