"""What clients ask a node on its client port, and what it answers. Every request has an id that its reply repeats."""

from typing import Annotated, TypeAlias

from msgspec import Meta

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import OrganisationKind, PublicName
from p2pledger.chain.receipt import Executed
from p2pledger.chain.statement import StatementKind
from p2pledger.consensus.anchor import Anchor, ReceiptEvidence
from p2pledger.consensus.messages import Certificate
from p2pledger.health.recovery_release import ShareRequest
from p2pledger.health.release import RecordOpening, ReleaseRequest
from p2pledger.network.feed_api import FeedReply, Subscribe
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import U64, AccountKey, Bytes16, Bytes32, ChainId, Height, Nonce, Signature, TransactionId
from p2pledger.state.tree import StateProof

LineNumber = Annotated[int, Meta(ge=1, le=2**63 - 1)]
"""Of a line in an access log, from 1."""

DETAIL_CHARS_MAX = 500
"""Of the words of one refusal."""

# The handshake, once TLS with the server's pinned key stands.


class Challenge(Record, frozen=True, tag=1):
    """The server's first words."""

    chain: ChainId
    nonce: Bytes32


class Hello(Record, frozen=True, tag=2):
    """The client's answer, signed over (server's node key, server's nonce, client's nonce) with its account key."""

    account: AccountKey
    nonce: Bytes32
    signature: Signature


class Welcome(Record, frozen=True, tag=3):
    """The client is who it says it is."""

    role: str
    """`patient`, `practitioner`, `organisation`, … or `stranger` for a key without an identity."""


# Requests


class Submit(Record, frozen=True, tag=10):
    """Take in a signed transaction. Reply: Accepted, or Failure with the code of the rule it breaks."""

    id: U64
    transaction: Annotated[bytes, Meta(max_length=limits.TRANSACTION_BYTES_MAX)]


class AwaitReceipt(Record, frozen=True, tag=11):
    """The receipt of one's own nonce (members: of anybody's), once durable; with `proven`, once proven by a header."""

    id: U64
    account: AccountKey
    nonce: Nonce
    proven: bool
    timeout_ms: U64
    """At most 60,000; then Failure(E_BUSY)."""


class SubmitMany(Record, frozen=True, tag=20):
    """Take in signed transactions and say what became of each. Replies: Outcomes, until every place has its outcome.

    The same rules as for Submit, for each place by itself. A transaction that the chain has decided already is answered
    with its receipt; one that finds no room with E_BUSY, to be sent again.
    """

    id: U64
    transactions: Annotated[
        tuple[Annotated[bytes, Meta(max_length=limits.TRANSACTION_BYTES_MAX)], ...],
        Meta(min_length=1, max_length=limits.BATCH_TRANSACTIONS_MAX),
    ]
    timeout_ms: U64
    """At most 60,000; then E_BUSY for every place that is not decided: its transaction may still be."""


class GetStatus(Record, frozen=True, tag=12):
    id: U64


class GetBlock(Record, frozen=True, tag=13):
    """A committed block; height 0 means the tip; its receipts for members only. Reply: BlockReply or Failure."""

    id: U64
    height: Height


class GetState(Record, frozen=True, tag=14):
    """A value of the state with its proof at the last checkpoint; members only. Reply: StateReply."""

    id: U64
    key: Annotated[bytes, Meta(max_length=limits.STATE_KEY_BYTES_MAX)]


class GetLog(Record, frozen=True, tag=15):
    """A patient's access log, complete up to the last checkpoint, from a line on. Reply: LogReply.

    A patient gets only the log of its own pid, others Failure(E_ROLE); so do practitioners. Organisations see all.
    """

    id: U64
    pid: Bytes16
    first: LineNumber = 1
    """The first line wanted. A long log comes in pages: who got 1 to n asks for n + 1."""
    first_release: LineNumber = 1
    """The first report about released keys that is wanted."""


class GetAccount(Record, frozen=True, tag=16):
    """The next free nonce of the asking key, its role and its id. Reply: AccountReply."""

    id: U64


class GetConsents(Record, frozen=True, tag=17):
    """The consents of a pid; same right as GetLog. Reply: ConsentsReply."""

    id: U64
    pid: Bytes16


class GetReviews(Record, frozen=True, tag=18):
    """Emergency accesses that nobody has reviewed yet, the first due first; members only. Reply: ReviewsReply."""

    id: U64


class GetLine(Record, frozen=True, tag=21):
    """One line of a patient's log with the proof of its receipt; same right as GetLog. Reply: LineReply.

    Failure(E_NOT_FOUND) where there is no such line or its receipt's events were pruned, E_BUSY where no
    header has sealed its height yet.
    """

    id: U64
    pid: Bytes16
    sequence: LineNumber


class GetOrganisations(Record, frozen=True, tag=23):
    """The public names of all organisations; for anybody. Reply: OrganisationsReply."""

    id: U64


class GetShares(Record, frozen=True, tag=24):
    """This validator's shares for records of an allowed access, for its reader alone; or for recovered keys.

    Reply: SharesReply. Failure with the code of `health.recovery_release.may_share`; E_ROLE for anybody but the reader
    or the recovered patient, E_NO_SHARE where this node holds none of that key, E_KEY_EPOCH for openings of several
    key epochs, E_BUSY while too many are being computed.
    """

    id: U64
    request: ShareRequest


class Judge(Record, frozen=True, tag=25):
    """What this node would say to GetShares now, without releasing anything; members only. Reply: JudgeReply.

    A vault service asks its own node before it hands out sealed objects.
    """

    id: U64
    request: ReleaseRequest
    reader: AccountKey | None = None
    """Whose question it would be: E_ROLE where the access is another's. None: not said."""


class Deposit(Record, frozen=True, tag=19):
    """One-time secrets of one batch, from its custodian or author: is this validator's share of each a good one?

    Reply: DepositReply; what is good the validator acknowledges on the chain. Failure with the code of
    `health.deposit_check.to_check`, E_NO_SHARE where this node has no key in their table, E_BUSY.
    """

    id: U64
    openings: Annotated[tuple[RecordOpening, ...], Meta(min_length=1, max_length=limits.RELEASE_RECORDS_MAX)]


class GetAlerts(Record, frozen=True, tag=29):
    """Integrity alerts about a pid's records; same right as GetLog. Reply: AlertsReply."""

    id: U64
    pid: Bytes16


class GetGuardians(Record, frozen=True, tag=27):
    """Who guards a patient, and what they are at. Reply: GuardiansReply, or Failure(E_NOT_FOUND) where nobody does.

    For those who may see the patient's log, for the new key of a recovery that waits, and for a guardian whose key and
    `salt` open one of the commitments; others get Failure(E_ROLE).
    """

    id: U64
    pid: Bytes16
    salt: Bytes32 | None = None
    recovery: Bytes16 | None = None
    """Which of the patient's recoveries; None: the one that waits."""


class GetErasures(Record, frozen=True, tag=28):
    """Requests for erasure about a pid, with the right of GetLog; without one what is not finished, members only.

    The first due first. Reply: ErasuresReply.
    """

    id: U64
    pid: Bytes16 | None


Question: TypeAlias = (
    Submit
    | AwaitReceipt
    | GetStatus
    | GetBlock
    | GetState
    | GetLog
    | GetAccount
    | GetConsents
    | GetLine
    | GetOrganisations
    | GetReviews
    | GetShares
    | Judge
    | Deposit
    | GetGuardians
    | GetErasures
    | GetAlerts
)
"""What has one reply."""
Request: TypeAlias = Question | Subscribe | SubmitMany


# Replies


class Failure(Record, frozen=True, tag=30):
    """Refused: the code, and words that name the value and the rule (never personal data)."""

    id: U64
    code: int
    detail: str


class Accepted(Record, frozen=True, tag=31):
    """Taken in; its receipt comes when the chain has decided."""

    id: U64
    transaction: TransactionId


class ReceiptReply(Record, frozen=True, tag=32):
    """The receipt; `evidence` is there when it was asked for as proven."""

    id: U64
    executed: Executed
    evidence: ReceiptEvidence | None


class Refusal(Record, frozen=True):
    """Why the transaction at one place of a SubmitMany was not taken in."""

    place: U64
    code: int
    detail: str
    """Words that name the value and the rule (never personal data)."""


class Outcomes(Record, frozen=True, tag=62):
    """What became of some places of a SubmitMany. Each of its places stands in one of its replies, once."""

    id: U64
    receipts: tuple[tuple[U64, Executed], ...]
    """Durable receipts by their places; not proven. Without their events where those are not the asking key's."""
    refusals: tuple[Refusal, ...]
    is_last: bool
    """Whether every place has had its outcome now."""


class ValidatorStatus(Record, frozen=True):
    """One other validator as this node sees it."""

    organisation: str
    node: Bytes32
    is_connected: bool
    committed: Height


class Equivocation(Record, frozen=True):
    """A validator that said two things at one place (P14)."""

    organisation: str
    validator: Bytes32
    kind: StatementKind
    epoch: U64
    view: U64
    height: U64
    """Of the block that it spoke about; 0 for statements about a view."""
    recorded: Height | None
    """The block that put the proof onto the chain; None: only this node has it, in its journal."""


class StatusReply(Record, frozen=True, tag=33):
    """What `p2pledger status` shows."""

    id: U64
    chain: ChainId
    version: str
    node: Bytes32
    is_ready: bool
    epoch: U64
    view: U64
    is_active: bool
    height: Height
    executed: Height
    block_time_ms: U64
    primary: str
    """Name of the organisation whose validator is primary."""
    n: U64
    f: U64
    q: U64
    pending_transactions: U64
    view_changes: U64
    equivocations: tuple[Equivocation, ...]
    peers: tuple[ValidatorStatus, ...]


class BlockReply(Record, frozen=True, tag=34):
    """A committed block; `certificate` is None where a descendant's certificate commits it."""

    id: U64
    header: Header
    certificate: Certificate | None
    receipts: tuple[Executed, ...]
    transactions: U64


class StateReply(Record, frozen=True, tag=35):
    """`value` at the checkpoint that `anchor`'s first header carries the root of; None = proven absent."""

    id: U64
    height: Height
    """Of the checkpoint."""
    value: bytes | None
    proof: StateProof
    anchor: Anchor


class LogReply(Record, frozen=True, tag=36):
    """The lines of a pid's log up to a checkpoint, oldest first, with the proof of the log's head there.

    Where the head counts more lines than these lead up to, the log is longer than a reply: this is a page of it.
    """

    id: U64
    pid: Bytes16
    height: Height
    lines: tuple[bytes, ...]
    """From the line that was asked for on; some 4 MiB at most."""
    head: bytes | None
    """The state value of the log's head; None with a proof of absence where no line was ever written."""
    proof: StateProof
    anchor: Anchor
    newer: tuple[bytes, ...]
    """Lines after the checkpoint: chained, not yet proven complete. With the last page only."""
    releases: tuple[bytes, ...] = ()
    """Reports about released keys from the wanted one on, chained up to the same head; after the last line only."""


class AccountReply(Record, frozen=True, tag=37):
    id: U64
    role: str
    next_nonce: Nonce
    """One above the highest nonce used."""
    identity: Bytes16 | None
    """The organisation's id or the identity's did whose current key this is; None for a stranger."""


class ConsentsReply(Record, frozen=True, tag=38):
    id: U64
    consents: tuple[bytes, ...]
    """Canonical bytes of the consents' state values."""


class ReviewsReply(Record, frozen=True, tag=39):
    id: U64
    uses: tuple[bytes, ...]
    """Canonical bytes of their state values; the first thousand."""


class LineReply(Record, frozen=True, tag=51):
    """A line of a log; the receipt's event names its patient, its number and its hash."""

    id: U64
    line: bytes
    evidence: ReceiptEvidence


class OrganisationsReply(Record, frozen=True, tag=53):
    id: U64
    organisations: tuple[tuple[Bytes16, PublicName, OrganisationKind], ...]


class SharesReply(Record, frozen=True, tag=54):
    """One validator's shares, each sealed to the reader's ephemeral key."""

    id: U64
    validator: Bytes32
    index: U64
    """Of its share, from 1."""
    key_epoch: U64
    share_epoch: U64
    """Only shares of one sharing open a capsule together. Of one-time secrets, key epoch 0, their table's number."""
    shares: tuple[bytes, ...]
    """One for each opening, in their order."""


class JudgeReply(Record, frozen=True, tag=55):
    id: U64
    code: int
    """A `Code`; OK: shares would be released at this height."""


class DepositReply(Record, frozen=True, tag=60):
    """What one validator has found of a deposit."""

    id: U64
    validator: Bytes32
    table: U64
    bad: Annotated[tuple[U64, ...], Meta(max_length=limits.RELEASE_RECORDS_MAX)]
    """Records of which it has no good share and will acknowledge nothing, by their indices."""


class GuardiansReply(Record, frozen=True, tag=57):
    id: U64
    guardianship: bytes
    """Its state value; `health.guardian_state` reads it."""
    recovery: bytes | None
    """The state value of the recovery that was asked for."""


class ErasuresReply(Record, frozen=True, tag=58):
    id: U64
    erasures: tuple[bytes, ...]
    """Canonical bytes of their state values; some 4 MiB at most."""


class AlertsReply(Record, frozen=True, tag=59):
    id: U64
    alerts: tuple[bytes, ...]
    """Canonical bytes of their state values; the first thousand."""


Reply: TypeAlias = (
    Failure
    | Accepted
    | ReceiptReply
    | StatusReply
    | BlockReply
    | StateReply
    | LogReply
    | AccountReply
    | ConsentsReply
    | LineReply
    | FeedReply
    | OrganisationsReply
    | ReviewsReply
    | GuardiansReply
    | SharesReply
    | JudgeReply
    | DepositReply
    | ErasuresReply
    | AlertsReply
    | Outcomes
)
