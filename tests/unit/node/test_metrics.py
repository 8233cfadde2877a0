"""What is counted, and under which names."""

import dataclasses

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from p2pledger.node.metrics import make_metrics
from p2pledger.primitives.errors import Code


def families(metrics):
    return list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))


def test_every_metric_carries_the_prefix():
    """One prefix for all that this program exports."""
    assert {family.name.split("_")[0] for family in families(make_metrics())} == {"p2pledger"}


def test_labels_are_few_and_known_in_advance():
    """T37: no peer, member or patient ever becomes a label; a flood of input makes no new series."""
    metrics = make_metrics()
    metrics.node_info.labels("0.1.0", "1", "00010203").set(1)
    before = sum(len(family.samples) for family in families(metrics))
    for code in (Code.E_SIG, Code.E_NONCE, Code.E_SIG):
        metrics.admission_rejected[code].inc()
    after = families(metrics)
    assert sum(len(family.samples) for family in after) == before
    labels = {label for family in after for sample in family.samples for label in sample.labels}
    assert labels <= {"code", "kind", "phase", "le", "version", "protocol", "chain"}


def test_every_code_has_its_handle():
    """Whatever the ledger refuses can be counted without a look-up by text."""
    metrics = make_metrics()
    assert set(metrics.admission_rejected) == set(metrics.execution_refused) == set(Code) - {Code.OK}


def test_names_are_as_operators_know_them():
    """Those that dashboards and alerts rely on."""
    names = {sample.name for family in families(make_metrics()) for sample in family.samples}
    assert {
        "p2pledger_consensus_height",
        "p2pledger_consensus_missing_validators",
        "p2pledger_consensus_view_changes_total",
        "p2pledger_consensus_equivocations_total",
        "p2pledger_mempool_transactions",
        "p2pledger_admission_rejected_total",
        "p2pledger_store_commit_seconds_bucket",
    } <= names


def test_two_nodes_in_one_process_do_not_share_metrics():
    """Each has a registry of its own."""
    first, second = make_metrics(), make_metrics()
    first.p2p_links.set(3)
    assert second.registry.get_sample_value("p2pledger_p2p_links") == 0
    assert first.registry is not second.registry


def test_a_handle_is_named_like_its_metric():
    """So that whoever reads a dashboard finds the line of code."""
    metrics = make_metrics()
    names = {family.name.removeprefix("p2pledger_") for family in metrics.registry.collect()}
    assert names == {field.name for field in dataclasses.fields(metrics)} - {"registry"}
