"""What the node counts. Names are like CometBFT's behind `p2pledger_`, in base units.

No label ever names a peer, a member or a patient: labels are codes and kinds, known in advance and few (T37). Handles
are made once; nobody looks a label up for each transaction.
"""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from p2pledger.primitives.errors import Code

_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SIGNED_KINDS = ("vote", "batch", "transaction", "submission")
"""Under what a checked signature stood; a transaction's own entry node checks it as a submission as well."""
PHASES = ("verify_vote", "verify_batch", "verify_submission", "engine", "store", "flush", "release")
"""What processor time is counted for; the rest of the process is TLS, framing, the client port and the event loop."""
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)


@dataclass(frozen=True, slots=True)
class Metrics:
    """One handle for each metric; all belong to `registry`."""

    registry: CollectorRegistry
    node_info: Gauge
    node_ready: Gauge
    node_cpu_seconds: dict[str, Counter]

    consensus_height: Gauge
    consensus_epoch: Gauge
    consensus_view: Gauge
    consensus_validators: Gauge
    consensus_missing_validators: Gauge
    consensus_is_primary: Gauge
    consensus_view_changes: Counter
    consensus_equivocations: Counter
    consensus_dropped: Counter
    consensus_block_time_seconds: Gauge
    consensus_block_interval_seconds: Histogram
    consensus_block_transactions: Histogram
    consensus_diverged: Gauge

    mempool_transactions: Gauge
    mempool_bytes: Gauge
    mempool_batches: Gauge

    admission_accepted: Counter
    admission_rejected: dict[Code, Counter]

    p2p_links: Gauge
    p2p_received_bytes: Counter
    p2p_sent_bytes: Counter
    p2p_relayed: Counter
    p2p_dropped: Counter
    p2p_faults: Counter
    p2p_handshakes_refused: Counter

    client_connections: Gauge
    client_requests: Counter
    client_malformed: Counter
    client_refused: Counter
    client_throttled: Counter

    execution_height: Gauge
    execution_transactions: Counter
    execution_unflushed_transactions: Gauge
    execution_refused: dict[Code, Counter]
    execution_internal_errors: Counter

    verify_signatures: dict[str, Counter]
    verify_bad_signatures: Counter

    store_commits: Counter
    store_commit_seconds: Histogram
    store_free_bytes: Gauge
    store_used_bytes: Gauge

    sync_blocks: Counter

    release_shares: Counter
    release_refused: dict[Code, Counter]
    release_unreported: Gauge
    sharing_phase: Gauge
    sharing_key_epoch: Gauge
    sharing_share_epoch: Gauge
    sharing_holds_share: Gauge

    erasure_unfinished: Gauge
    erasure_overdue: Gauge
    erasure_uncertified: Gauge


def make_metrics(registry: CollectorRegistry | None = None) -> Metrics:
    """All metrics at zero, in a registry of their own, so that several nodes can live in one test process."""
    registry = CollectorRegistry() if registry is None else registry

    def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, text, labels, namespace="p2pledger", registry=registry)

    def counter(name: str, text: str) -> Counter:
        return Counter(name, text, namespace="p2pledger", registry=registry)

    def by_code(name: str, text: str) -> dict[Code, Counter]:
        family = Counter(name, text, ("code",), namespace="p2pledger", registry=registry)
        return {code: family.labels(code.name) for code in Code if code is not Code.OK}

    def by_kind(name: str, text: str, label: str, kinds: tuple[str, ...]) -> dict[str, Counter]:
        family = Counter(name, text, (label,), namespace="p2pledger", registry=registry)
        return {kind: family.labels(kind) for kind in kinds}

    def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, namespace="p2pledger", registry=registry, buckets=buckets)

    return Metrics(
        registry=registry,
        node_info=gauge("node_info", "Always 1; the labels say what runs", ("version", "protocol", "chain")),
        node_ready=gauge("node_ready", "1 when this node takes transactions"),
        node_cpu_seconds=by_kind("node_cpu_seconds", "Processor time of the node's parts", "phase", PHASES),
        consensus_height=gauge("consensus_height", "Last committed height"),
        consensus_epoch=gauge("consensus_epoch", "Epoch of the next height"),
        consensus_view=gauge("consensus_view", "View of this replica"),
        consensus_validators=gauge("consensus_validators", "Validators of this epoch"),
        consensus_missing_validators=gauge(
            "consensus_missing_validators", "Validators that this node has no live link to"
        ),
        consensus_is_primary=gauge("consensus_is_primary", "1 while this validator is primary of its view"),
        consensus_view_changes=counter("consensus_view_changes", "View changes that this replica started or joined"),
        consensus_equivocations=counter("consensus_equivocations", "Contradicting signed messages seen (P14)"),
        consensus_dropped=counter("consensus_dropped", "Consensus messages beyond the bounds of P23"),
        consensus_block_time_seconds=gauge("consensus_block_time_seconds", "Time in the last committed header"),
        consensus_block_interval_seconds=histogram(
            "consensus_block_interval_seconds", "Time between two commits at this node", _S
        ),
        consensus_block_transactions=histogram("consensus_block_transactions", "Transactions of a block", _COUNTS),
        consensus_diverged=gauge("consensus_diverged", "1 when this node halted because its state differs (P22)"),
        mempool_transactions=gauge("mempool_transactions", "Transactions not yet ordered"),
        mempool_bytes=gauge("mempool_bytes", "Bytes of transactions not yet ordered"),
        mempool_batches=gauge("mempool_batches", "Batches held and not yet ordered"),
        admission_accepted=counter("admission_accepted", "Transactions taken in from clients"),
        admission_rejected=by_code("admission_rejected", "Transactions turned away before ordering"),
        p2p_links=gauge("p2p_links", "Live links to other nodes"),
        p2p_received_bytes=counter("p2p_received_bytes", "Bytes received from other nodes"),
        p2p_sent_bytes=counter("p2p_sent_bytes", "Bytes sent to other nodes"),
        p2p_relayed=counter("p2p_relayed", "Messages carried on for others"),
        p2p_dropped=counter("p2p_dropped", "Messages for peers dropped because their queue was full"),
        p2p_faults=counter("p2p_faults", "Sessions ended because the peer broke the protocol"),
        p2p_handshakes_refused=counter("p2p_handshakes_refused", "Connections that were no member's"),
        client_connections=gauge("client_connections", "Clients connected"),
        client_requests=counter("client_requests", "Requests of clients"),
        client_malformed=counter("client_malformed", "Sessions ended because a client sent what is no request"),
        client_refused=counter("client_refused", "Connections to the client port that became no session"),
        client_throttled=counter("client_throttled", "Times a client that sends too fast was read more slowly"),
        execution_height=gauge("execution_height", "Last executed height"),
        execution_transactions=counter("execution_transactions", "Transactions executed"),
        execution_unflushed_transactions=gauge(
            "execution_unflushed_transactions", "Executed, but not in the state store: executed again by a restart"
        ),
        execution_refused=by_code("execution_refused", "Transactions that a rule of the application refused"),
        execution_internal_errors=counter("execution_internal_errors", "Errors inside contracts; alarm on any"),
        verify_signatures=by_kind("verify_signatures", "Signatures checked", "kind", SIGNED_KINDS),
        verify_bad_signatures=counter("verify_bad_signatures", "Signatures found wrong"),
        store_commits=counter("store_commits", "Durable writes of the ledger store"),
        store_commit_seconds=histogram("store_commit_seconds", "Duration of a durable write", _S),
        store_free_bytes=gauge("store_free_bytes", "Free bytes on the disk of the stores"),
        store_used_bytes=gauge("store_used_bytes", "Bytes that the stores take on disk"),
        sync_blocks=counter("sync_blocks", "Blocks fetched from others instead of voted on"),
        release_shares=counter("release_shares", "Shares of record keys that have left this validator"),
        release_refused=by_code("release_refused", "Requests for shares that were refused"),
        release_unreported=gauge("release_unreported", "Accesses whose released shares the chain does not know of yet"),
        sharing_phase=gauge("sharing_phase", "Phase of the key ceremony that runs, 1 to 5; 0: none runs"),
        sharing_key_epoch=gauge("sharing_key_epoch", "Newest key epoch with an active joint key; 0: none yet"),
        sharing_share_epoch=gauge("sharing_share_epoch", "Sharing of the newest joint key"),
        sharing_holds_share=gauge("sharing_holds_share", "1 while this validator holds its share of the newest key"),
        erasure_unfinished=gauge("erasure_unfinished", "Requests for erasure that are not finished; of all custodians"),
        erasure_overdue=gauge("erasure_overdue", "Requests for erasure that this house should have decided by now"),
        erasure_uncertified=gauge(
            "erasure_uncertified", "Decided erasures for which this house has not certified that all is deleted"
        ),
    )
