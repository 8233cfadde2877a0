"""Where the health layer keeps its state: one prefix byte a kind, all from 0x10 on (the ledger's own are below).

| prefix | key                               | value                                             |
|--------|-----------------------------------|---------------------------------------------------|
| 0x10   | organisation (16)                 | Organisation                                      |
| 0x11   | SHA-256 of an organisation's name | its id                                            |
| 0x12   | account key (32)                  | KeyOwner: whose key it is or was                  |
| 0x13   | did (16)                          | Identity                                          |
| 0x14   | did (16) ‖ role, filled to 16     | Credential                                        |
| 0x15   | –                                 | Rules: the health parameters of the chain         |
| 0x16   | did or organisation (16) ‖ number (4, BE) | KeyPeriod: one of its keys, from 1         |
| 0x20   | batch (16)                        | Batch                                             |
| 0x22   | pid (16) ‖ batch (16) ‖ index (8, BE) ‖ account key (32) | Alert: bytes that are not the record's |
| 0x30   | pid (16) ‖ consent (16)           | Consent                                           |
| 0x31   | consent (16)                      | its pid                                           |
| 0x32   | pid (16)                          | Holdings: how many consents it has, of what size  |
| 0x33   | pid (16) ‖ did (16)               | Proxy                                             |
| 0x34   | did (16) ‖ pid (16)               | empty: for whom somebody is or was a proxy        |
| 0x35   | pid (16)                          | Deceased                                          |
| 0x40   | access (16)                       | Access: the request with its decision             |
| 0x41   | access (16)                       | BrokenGlass: an emergency access and its review   |
| 0x42   | due (8, BE) ‖ access (16)         | empty: reviews that are due                       |
| 0x43   | organisation (16)                 | Rate: allowed accesses in a window                |
| 0x44   | did (16)                          | Rate                                              |
| 0x45   | account key (32)                  | Refusals in a window                              |
| 0x46   | organisation (16)                 | OfflineHead: its anchored emergency openings      |
| 0x50   | pid (16)                          | LogHead: counts and hashes of the last lines      |
| 0x51   | pid (16) ‖ sequence (8, BE)       | LogLine, as hashed                                |
| 0x52   | pid (16) ‖ sequence (8, BE)       | ReleaseLine: a report about its keys, as hashed   |
| 0x60   | number (8, BE)                    | Approved: a pruning                               |
| 0x61   | –                                 | how many prunings were approved                   |
| 0x70   | key epoch (8) ‖ share epoch (8)   | Ceremony: the newest attempt at this sharing      |
| 0x71   | the same ‖ dealer (1)             | Deal                                              |
| 0x72   | the same ‖ dealer ‖ receiver      | the sub-share that the dealer had to show         |
| 0x73   | the same                          | JointKey: what the ceremony has led to            |
| 0x74   | key epoch (8)                     | ActiveKey: the newest sharing of a joint key      |
| 0x75   | –                                 | the newest key epoch                              |
| 0x76   | access (16) ‖ validator (32)      | Reported: how many of its shares have left        |
| 0x77   | validator (32)                    | Announced: its deposit key                        |
| 0x78   | table number (8)                  | DepositTable: the deposit keys as they stood then |
| 0x79   | –                                 | the newest table's number                         |
| 0x7A   | batch (16) ‖ validator (32)       | Deposited: of which records it has its shares     |
| 0x80   | pid (16)                          | Guardianship: who guards a patient                |
| 0x81   | recovery (16)                     | Recovery                                          |
| 0x88   | erasure (16)                      | Erasure: a request, what was decided, who certified |
| 0x89   | due (8, BE) ‖ erasure (16)        | empty: requests that are not finished             |
| 0x8A   | batch (16)                        | ErasedOf: its records that are erased             |
| 0x8B   | pid (16) ‖ erasure (16)           | empty: the requests about a patient               |
| 0x8C   | custodian (16) ‖ holder (16)      | Holder: who keeps replicas for a custodian        |
"""

from p2pledger.primitives.crypto import sha256
from p2pledger.threshold.dkg import CeremonyId

ORGANISATION = b"\x10"
ORGANISATION_NAME = b"\x11"
KEY_OWNER = b"\x12"
IDENTITY = b"\x13"
CREDENTIAL = b"\x14"
RULES = b"\x15"
KEY_PERIOD = b"\x16"
BATCH = b"\x20"
INTEGRITY_ALERT = b"\x22"
CONSENT = b"\x30"
CONSENT_PID = b"\x31"
CONSENT_COUNT = b"\x32"
PROXY = b"\x33"
PROXY_FOR = b"\x34"
DECEASED = b"\x35"
ACCESS = b"\x40"
BROKEN_GLASS = b"\x41"
REVIEW_DUE = b"\x42"
ORGANISATION_RATE = b"\x43"
PERSON_RATE = b"\x44"
REFUSALS = b"\x45"
OFFLINE_HEAD = b"\x46"
LOG_HEAD = b"\x50"
LOG_LINE = b"\x51"
RELEASE_LINE = b"\x52"
PRUNING = b"\x60"
PRUNING_COUNT = b"\x61"
CEREMONY = b"\x70"
DEAL = b"\x71"
SHOWN_SHARE = b"\x72"
OUTCOME = b"\x73"
JOINT_KEY = b"\x74"
NEWEST_KEY = b"\x75"
RELEASED = b"\x76"
DEPOSIT_KEY = b"\x77"
DEPOSIT_TABLE = b"\x78"
NEWEST_TABLE = b"\x79"
DEPOSITED = b"\x7a"
GUARDIANSHIP = b"\x80"
RECOVERY = b"\x81"
ERASURE = b"\x88"
ERASURE_DUE = b"\x89"
ERASED = b"\x8a"
PATIENT_ERASURE = b"\x8b"
HOLDER = b"\x8c"


def organisation(identifier: bytes) -> bytes:
    return ORGANISATION + identifier


def organisation_name(name: str) -> bytes:
    return ORGANISATION_NAME + sha256(name.encode())


def key_owner(account: bytes) -> bytes:
    return KEY_OWNER + account


def identity(did: bytes) -> bytes:
    return IDENTITY + did


def credentials(did: bytes) -> bytes:
    """The prefix of all credentials of an identity."""
    return CREDENTIAL + did


def credential(did: bytes, role: str) -> bytes:
    return credentials(did) + role.encode().ljust(16, b"\0")


def key_periods(identifier: bytes) -> bytes:
    """The prefix of all keys that an identity or an organisation has had."""
    return KEY_PERIOD + identifier


def key_period(identifier: bytes, number: int) -> bytes:
    return key_periods(identifier) + number.to_bytes(4, "big")


def batch(identifier: bytes) -> bytes:
    return BATCH + identifier


def integrity_alerts(pid: bytes) -> bytes:
    """The prefix of all alerts about a patient's records."""
    return INTEGRITY_ALERT + pid


def integrity_alert(pid: bytes, batch_id: bytes, index: int, author: bytes) -> bytes:
    return integrity_alerts(pid) + batch_id + index.to_bytes(8, "big") + author


def consents(pid: bytes) -> bytes:
    """The prefix of all consents of a patient."""
    return CONSENT + pid


def consent(pid: bytes, identifier: bytes) -> bytes:
    return consents(pid) + identifier


def consent_pid(identifier: bytes) -> bytes:
    return CONSENT_PID + identifier


def consent_count(pid: bytes) -> bytes:
    return CONSENT_COUNT + pid


def proxies(pid: bytes) -> bytes:
    """The prefix of all proxies of a patient."""
    return PROXY + pid


def proxy(pid: bytes, did: bytes) -> bytes:
    return proxies(pid) + did


def proxy_for(did: bytes, pid: bytes) -> bytes:
    return PROXY_FOR + did + pid


def deceased(pid: bytes) -> bytes:
    return DECEASED + pid


def access(identifier: bytes) -> bytes:
    return ACCESS + identifier


def broken_glass(access_id: bytes) -> bytes:
    return BROKEN_GLASS + access_id


def review_due(due_ms: int, access_id: bytes) -> bytes:
    return REVIEW_DUE + due_ms.to_bytes(8, "big") + access_id


def organisation_rate(identifier: bytes) -> bytes:
    return ORGANISATION_RATE + identifier


def person_rate(did: bytes) -> bytes:
    return PERSON_RATE + did


def refusals(account: bytes) -> bytes:
    return REFUSALS + account


def offline_head(organisation: bytes) -> bytes:
    return OFFLINE_HEAD + organisation


def log_head(pid: bytes) -> bytes:
    return LOG_HEAD + pid


def log_lines(pid: bytes) -> bytes:
    """The prefix of a patient's log lines."""
    return LOG_LINE + pid


def log_line(pid: bytes, sequence: int) -> bytes:
    return log_lines(pid) + log_sequence(sequence)


def release_lines(pid: bytes) -> bytes:
    """The prefix of all reports about released keys to a patient's records."""
    return RELEASE_LINE + pid


def release_line(pid: bytes, sequence: int) -> bytes:
    return release_lines(pid) + log_sequence(sequence)


def log_sequence(sequence: int) -> bytes:
    return sequence.to_bytes(8, "big")


def pruning(number: int) -> bytes:
    return PRUNING + number.to_bytes(8, "big")


def _sharing(ceremony: CeremonyId) -> bytes:
    return ceremony.key_epoch.to_bytes(8, "big") + ceremony.share_epoch.to_bytes(8, "big")


def ceremony(identifier: CeremonyId) -> bytes:
    return CEREMONY + _sharing(identifier)


def deals(identifier: CeremonyId) -> bytes:
    """The prefix of all deals of a sharing."""
    return DEAL + _sharing(identifier)


def deal(identifier: CeremonyId, dealer: int) -> bytes:
    return deals(identifier) + bytes([dealer])


def shown_shares(identifier: CeremonyId) -> bytes:
    """The prefix of all sub-shares that were shown in a sharing."""
    return SHOWN_SHARE + _sharing(identifier)


def shown_share(identifier: CeremonyId, dealer: int, receiver: int) -> bytes:
    return shown_shares(identifier) + bytes([dealer, receiver])


def outcome(identifier: CeremonyId) -> bytes:
    return OUTCOME + _sharing(identifier)


def joint_key(key_epoch: int) -> bytes:
    return JOINT_KEY + key_epoch.to_bytes(8, "big")


def releases(access_id: bytes) -> bytes:
    """The prefix of all reports about an access."""
    return RELEASED + access_id


def released(access_id: bytes, validator: bytes) -> bytes:
    return releases(access_id) + validator


def deposit_key(validator: bytes) -> bytes:
    return DEPOSIT_KEY + validator


def deposit_table(number: int) -> bytes:
    return DEPOSIT_TABLE + number.to_bytes(8, "big")


def deposits(batch_id: bytes) -> bytes:
    """The prefix of all acknowledgements of a batch."""
    return DEPOSITED + batch_id


def deposited(batch_id: bytes, validator: bytes) -> bytes:
    return deposits(batch_id) + validator


def guardianship(pid: bytes) -> bytes:
    return GUARDIANSHIP + pid


def recovery(identifier: bytes) -> bytes:
    return RECOVERY + identifier


def erasure(identifier: bytes) -> bytes:
    return ERASURE + identifier


def erasure_due(due_ms: int, identifier: bytes) -> bytes:
    return ERASURE_DUE + due_ms.to_bytes(8, "big") + identifier


def erased(batch_id: bytes) -> bytes:
    return ERASED + batch_id


def patient_erasures(pid: bytes) -> bytes:
    """The prefix of all requests for erasure about a patient."""
    return PATIENT_ERASURE + pid


def patient_erasure(pid: bytes, identifier: bytes) -> bytes:
    return patient_erasures(pid) + identifier


def holders(custodian: bytes) -> bytes:
    """The prefix of all who keep replicas for a custodian."""
    return HOLDER + custodian


def holder(custodian: bytes, organisation: bytes) -> bytes:
    return holders(custodian) + organisation
