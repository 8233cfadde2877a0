"""Every bound of the system with its reason; what has no limit is set by whoever attacks us.

Limits that decide whether a block is valid are the same on every node and never configured locally.
"""

VALIDATORS_MAX = 50
"""Certificates carry up to a quorum of 65-byte votes; 50 keeps one below 2.5 KB."""
WINDOW_DEFAULT = 4
"""Heights open above the last committed one (P2): enough to hide one round trip."""
WINDOW_MAX = 8

TRANSACTION_BYTES_MAX = 64 * 1024
"""A consent with 16 exceptions and 64 operations fits many times over."""
OPERATIONS_MAX = 64
COSIGNERS_MAX = 16
"""Guardians and founding organisations together; each one costs a verification."""
NONCE_WINDOW = 1024
"""Transactions one sender may have in flight, out of order."""
EXPIRY_AHEAD_MS_MAX = 24 * 3600 * 1000
"""A signed transaction can wait at most a day; replay protection need not remember for longer."""

BATCH_TRANSACTIONS_MAX = 500
BATCH_BYTES_MAX = 1024 * 1024
BATCH_SEAL_TRANSACTIONS = 200
BATCH_SEAL_MS = 10
GATHER_MS_MAX = 100
"""The longest that transactions wait for others to share a batch or a block with."""
BLOCK_TRANSACTIONS_MAX = 5_000
BLOCK_TRANSACTIONS_TARGET = 1_000
BLOCK_TRANSACTIONS_LEAST = 200
"""What a primary proposes at most of when blocks take too long, however slow its machine is."""
BLOCK_BYTES_MAX = 2 * 1024 * 1024
BLOCK_BATCHES_MAX = 1_000
"""32 KB of batch ids in a header at most."""
BLOCK_DELAY_MS = 50
QUIET_MS = 50
"""Without transactions after a block that had some, before an empty one seals its roots; longer under load."""
ORIGIN_WINDOW = 1024
"""Batches one origin may have unordered; also the memory of which ones stood in the chain."""

VIEWS_AHEAD_MAX = 8
"""Votes are kept for at most this many views above our own (P23)."""

STATE_KEY_BYTES_MAX = 256
STATE_VALUE_BYTES_MAX = 64 * 1024
"""LMDB keys must stay below 511 bytes; values that large would be records, which never enter the chain."""

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""The largest frame: a range of blocks with bodies, twice BLOCK_BYTES_MAX."""
HANDSHAKE_BYTES_MAX = 4 * 1024
HANDSHAKE_S_MAX = 5.0
CLIENT_FRAME_BYTES_MAX = 1024 * 1024
CLIENT_REPLY_BYTES_MAX = 8 * 1024 * 1024
"""The longest reply: a page of an access log with its proof."""
LOG_PAGE_BYTES_MAX = 4 * 1024 * 1024
"""Lines in one reply, some 15,000; the 64 headers of a proof take 2 MiB at most."""

SYNC_RANGE_BLOCKS_MAX = 64
SYNC_RANGE_BYTES_MAX = 2 * 1024 * 1024

CHECKPOINT_INTERVAL = 100
"""Heights between state roots; a busy chain hashes its changed keys this often."""
CHECKPOINT_TRANSACTIONS = 3_000
"""After so many a state root is due as well: all pages that they change are in memory at once when they are flushed."""
DRIFT_MS_DEFAULT = 10_000
HEARTBEAT_MS_DEFAULT = 60_000
TIMEOUT_MS_DEFAULT = 1_000
TIMEOUT_MS_CAP = 8_000
TERM_HEIGHTS_DEFAULT = 10_000
"""Committed heights after which a primary steps down (P24)."""

PRUNE_DISTANCE_HEIGHTS = 100
"""Heights between a pruning's horizon and its approval: clients fetch receipts there, and nodes catch up."""

MEMPOOL_TRANSACTIONS_MAX = 20_000
MEMPOOL_BYTES_MAX = 32 * 1024 * 1024
POOL_BATCH_BYTES_MAX = 64 * 1024 * 1024
"""Unordered batches of all origins held in memory; beyond it new ones are refused, and pulled when ordered."""

CONSENTS_PER_PATIENT_MAX = 256
CONSENT_BYTES_PER_PATIENT_MAX = 256 * 1024
"""A request that names no consent is judged by all of them: a few milliseconds of every node's time at most."""
PROXIES_PER_PATIENT_MAX = 32
"""Parents, attorneys and guardians in a lifetime, ended ones too; each is looked up by its own key."""
BREAK_GLASS_RECORDS_MAX = 256
"""An emergency needs a chart, not an archive."""
BREAK_GLASS_REVIEW_MS_DEFAULT = 72 * 3600 * 1000
BREAK_GLASS_WINDOW_MS_DEFAULT = 30 * 24 * 3600 * 1000
BREAK_GLASS_ALARM_USES_DEFAULT = 20
BREAK_GLASS_ALARM_PERMILLE_DEFAULT = 20
"""Two in a hundred accesses are too many to be exceptions, once there are twenty of them."""
REFUSALS_WINDOW_MS_DEFAULT = 3600 * 1000
REFUSALS_MAX_DEFAULT = 200
"""A person mistypes, a program in a loop does not: two hundred refusals an hour are the program."""
ERASE_DECISION_MS_DEFAULT = 30 * 24 * 3600 * 1000
"""A month to answer (GDPR Art. 12(3))."""
GUARDIANS_MAX = 16
"""Each approval costs every node a verification; nobody has more people to trust with this."""
RECOVERY_DELAY_MIN_MS_DEFAULT = 24 * 3600 * 1000
RECOVERY_DELAY_MS_MAX = 90 * 24 * 3600 * 1000
"""Who waits longer for its own key has lost it."""
RECOVERY_LONG_MS_DEFAULT = 14 * 24 * 3600 * 1000
"""Beyond veto: long enough to be heard of by whoever is away."""
FREEZE_MAX_MS_DEFAULT = 30 * 24 * 3600 * 1000
"""Two vetoed recoveries and one beyond veto fit into it."""
SPAN_MS_MAX = 366 * 24 * 3600 * 1000
"""Longer spans in the parameters are mistakes of unit."""

CEREMONY_PHASE_MS = 120_000
"""Block time that a phase of a key ceremony waits for the silent: a node that was killed is back by then."""
CEREMONY_BYTES_MAX = 32 * 1024
"""How far a ceremony has come, with 50 seats, and each of them accused by all others."""

RELEASES_REPORTED_MAX = 256
"""Accesses in one report of a validator: some 5 KB."""
RELEASE_RECORDS_MAX = 256
"""Records in one question for shares: a quarter of a second of a validator's time."""
DEPOSIT_KEYS_MAX = 16
"""Deposit keys of one validator in its life: each makes a table that stays, so all together make 800 at most."""
DEPOSITS_OWED_MAX = 64
"""Batches whose acknowledgements a node has still to see on the chain, at 10 KB each with what is kept beside them."""

ERASURES_WAITING_MAX = 16
"""Undecided requests about one patient: whoever asks for more has not waited for an answer."""
ERASED_BATCHES_MAX = 256
"""Batches in one decision: a long life at one hospital."""
ERASE_DECISION_BYTES_MAX = 32 * 1024
"""It stands in one state value, with its request and its certificates."""
HOLDERS_MAX = 15
"""Organisations that keep replicas for one custodian; with it they are sixteen to certify."""

FHIR_FILE_BYTES_MAX = 64 * 1024 * 1024
"""A bundle or NDJSON file is held in memory while it is taken in; a hundred times the sample bundles."""
FHIR_ENTRIES_MAX = 10_000
"""Records in one file: their Merkle leaves and their manifest are made at once."""
FHIR_RESOURCE_BYTES_MAX = 16 * 1024 * 1024
"""One resource; a scanned document inside a Binary fits, an imaging study belongs beside the record."""
FHIR_DEPTH_MAX = 64
"""Nested objects and arrays; FHIR resources stay below 20, and Python's parser must never reach its own limit."""
