"""The agreement core alone, through faults and back; and proof that its judge, signatures and seeds are right."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from p2pledger.chain.genesis import Parameters
from p2pledger.chain.validators import ValidatorSet
from p2pledger.primitives import crypto
from p2pledger.sim.core import recovery_bound_ms, run_seed
from p2pledger.sim.core.signatures import Ed25519, Oracle
from p2pledger.sim.faults import AIMS
from p2pledger.sim.founding import found
from p2pledger.sim.observer import InvariantBroken

REACHED = [
    "bad block",
    "blocks synced",
    "crash before a write",
    "crash after a write",
    "crash before a vote is signed",
    "crash between sends",
    "crash during recovery",
    "cut in one direction",
    "disk lost",
    "equivocation seen",
    "failed write",
    "partition",
    "restart with a journal",
    *(f"isolated at {aim}" for aim in AIMS),
]


@pytest.mark.parametrize(("n", "seeds"), [(4, range(250)), (7, range(50))])
def test_no_seed_breaks_an_invariant(n: int, seeds: range) -> None:
    """Invariants 1 to 4 and 7 to 9, the quorum on the wire, and all that must have happened to mean anything."""
    reached: Counter[str] = Counter()
    for seed in seeds:
        reached.update(run_seed(seed, n).reached)
    assert not [name for name in REACHED if not reached[name]]


@pytest.mark.parametrize("seed", [2997, 8458, 11020, 17480])
def test_two_tips_of_one_view_stop_nobody(seed: int) -> None:
    """P13. Found by `make sim-long`: who had been shown one tip took what others committed on the other for a fork."""
    run_seed(seed, 4)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 8, 9, 10, 13])
def test_every_size_recovers(n: int) -> None:
    """From one validator to thirteen, f included."""
    for seed in range(6):
        run_seed(seed, n, heights=10)


def test_the_same_seeds_give_the_same_runs_in_another_process() -> None:
    """Every delivery in order and the chain; whatever Python's hashes are."""
    for seed in ("2", "5", "11", "14"):
        command = [sys.executable, "-m", "p2pledger", "sim", "replay", seed, "--layer", "core"]
        runs = [
            subprocess.run(
                command, env={**os.environ, "PYTHONHASHSEED": hashes}, capture_output=True, text=True, check=True
            ).stdout
            for hashes in ("1", "4242")
        ]
        assert "trace" in runs[0]
        assert runs[0] == runs[1]


def test_real_signatures_decide_as_the_table_does() -> None:
    """The same deliveries are accepted and refused, forged ones included, so the same heights are reached."""
    for seed in range(8):
        tabled, real = run_seed(seed, 4, heights=8), run_seed(seed, 4, heights=8, is_really_signed=True)
        assert (tabled.heights, tabled.messages, tabled.reached) == (real.heights, real.messages, real.reached)


def test_a_table_entry_is_made_by_the_owner_only() -> None:
    """Unforgeable: neither another key's signature, nor one over other bytes, nor the digest itself, is accepted."""
    keys = found(4, Parameters()).consensus
    table = Oracle(keys)
    signature = table.sign(0, b"yes")
    assert table.verify(keys[0].public, b"yes", signature)
    assert table.sign(0, b"yes") == signature
    assert not table.verify(keys[1].public, b"yes", signature)
    assert not table.verify(keys[0].public, b"no", signature)
    assert not table.verify(keys[2].public, b"yes", Oracle(keys).sign(2, b"yes"))
    assert Ed25519(keys).verify(keys[0].public, b"yes", Ed25519(keys).sign(0, b"yes"))
    assert crypto.verify(keys[0].public, b"yes", Ed25519(keys).sign(0, b"yes"))


def test_a_quorum_of_2f_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge shares no count with the replicas: who commits with too few is caught in the first worlds."""
    monkeypatch.setattr(ValidatorSet, "q", property(lambda validators: 2 * validators.f))
    with pytest.raises(InvariantBroken, match=r"replay with: p2pledger sim replay"):
        for seed in range(20):
            run_seed(seed, 4)


def test_a_forgotten_lock_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """P12: a primary that builds on nothing, whatever was claimed, contradicts what was decided before."""
    monkeypatch.setattr("p2pledger.consensus.replica.select_tip", lambda quorum: (None, None))
    with pytest.raises(InvariantBroken):
        for seed in range(50):
            run_seed(seed, 4)


def test_the_bound_for_recovery_counts_faulty_primaries_and_grown_timeouts() -> None:
    parameters = Parameters(timeout_cap_ms=2_400)
    assert recovery_bound_ms(4, parameters) == 7 * 2_400
    assert recovery_bound_ms(7, parameters) == 9 * 2_400
