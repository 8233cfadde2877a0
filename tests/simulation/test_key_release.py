"""I-1 to I-5, I-9, I-10 and the life of keys (F-04, F-10, F-23 to F-26), in worlds that crash, partition and lie.

Validators make a joint key and renew its shares, custodians seal to it, deal one-time secrets and erase, readers ask
for shares while consents end, guardians freeze and recover patients' keys, and some of all of them lie. The observer
judges each share from the chain, the disks and the curve, by code of its own.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from p2pledger.execution.contract import Duty
from p2pledger.health import release
from p2pledger.health.access import Access
from p2pledger.health.key_keeper import SecretName, WriteSecret
from p2pledger.health.release import Moment, ReleaseEntry
from p2pledger.health.release_operations import ReleaseReceipt
from p2pledger.primitives.errors import Code
from p2pledger.sim import InvariantBroken, draw
from p2pledger.sim.keys import liars
from p2pledger.sim.keys.campaign import run_seed, run_ward
from p2pledger.sim.keys.holder import BOUNDARIES, Answer, KeyHolder, Promise
from p2pledger.sim.keys.ward import Ward
from p2pledger.state.view import StateView
from p2pledger.threshold import key_release
from p2pledger.threshold.sealing import BoxSecret
from tests.attack import Without

CHUNKS = [(4, first, first + 4) for first in range(0, 24, 4)] + [(7, 0, 1)]
SITUATIONS = [
    # the life of a key
    "record opened",
    "resharing active",
    "share_received_late",
    "old and new shares tried together",
    "too few shares tried",
    "refresh with a crashed holder",
    "complaint justified",
    "dealer excluded",
    # refusals, and what is nearly one
    "refused after it was allowed: E_REVOKED",
    "refused after it was allowed: E_EXPIRED",
    "refused after it was written down: E_REVOKED",
    "release at a node behind",
    # guardians
    "recovered keys opened",
    "recovery beyond veto is final",
    "recovery vetoed",
    "answer E_THRESHOLD",
    "answer E_VETO",
    f"RecoveryFinalize is refused: {Code.E_TIMELOCK:d}",
    "recovery refused E_STATE",
    "recovery refused E_FROZEN",
    "refused after it was allowed: E_FROZEN",
    "refused after it was allowed: E_UNKNOWN_ACTOR",
    "refused after it was written down: E_FROZEN",
    # erasure
    "refused after it was allowed: E_ERASED",
    "refused after it was written down: E_ERASED",
    # one-time secrets
    "record opened by one-time shares",
    "deposit found bad",
    "lie of a dealer of one-time secrets",
    "lie of FalseWitness",
    "refused after it was allowed: E_DEAL",
    "too few dealt shares tried",
    # liars
    *(f"lie of {name}" for name in ("ComplaintSpammer", "Mute")),
    "lie of CheatingDealer: deals badly",
    *(f"lie of LyingHolder: {deed}" for deed in ("wrong", "diverted", "secret")),
    *(f"lie of {name}" for name in ("CapsuleMover", "KeySubstituter", "ReplayingReader", "SwappingReader")),
    "liar named by the reader",
    "audit names a secret release",
    "an old backup is restored",
]
"""Each must be reached by all chunks together."""


@pytest.fixture(scope="session")
def wards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "wards"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.mark.parametrize(("n", "first", "beyond"), CHUNKS)
def test_no_share_leaves_without_a_right_and_every_right_opens(n: int, first: int, beyond: int, wards: Path) -> None:
    """I-1, I-2, I-3, I-4, I-5, I-9, I-10, F-23, F-24, F-25, F-26 hold in every ward.

    Healed, each makes its key, opens records by it and by one-time secrets, and gives a recovered patient its box keys.
    """
    reached: Counter[str] = Counter()
    for seed in range(first, beyond):
        reached.update(run_seed(seed, n).reached)
    unfinished = wards / f"{n}-{first}.part"
    unfinished.write_text(json.dumps(reached))
    unfinished.rename(wards / f"{n}-{first}.json")
    finished = list(wards.glob("*.json"))
    if len(finished) == len(CHUNKS):
        total: Counter[str] = sum((Counter(json.loads(each.read_text())) for each in finished), Counter())
        missed = [name for name in SITUATIONS if not total[name]]
        assert not missed, f"the wards never met these situations: {missed}"


@pytest.mark.parametrize("where", BOUNDARIES)
def test_every_node_may_die_at_every_step(where: str) -> None:
    """F-04, I-9: of a ceremony, a refresh, a deposit and a release; the key is made and opens all the same."""
    is_dispute = "LtsComplaint" in where or "LtsJustify" in where
    result = run_ward(draw(1, 4, "calm", 90), Ward({3: liars.ComplaintSpammer} if is_dispute else {}, dies=where))
    assert result.reached[f"crash {where}"], result.reached
    assert result.reached["record opened"]


def test_the_same_seed_gives_the_same_ward() -> None:
    """Keys, seals and crashes are drawn as everything else is."""
    first, second = run_seed(3, 4), run_seed(3, 4)
    assert (first.trace, first.reached) == (second.trace, second.reached)


# The observer bites


class Forgetful(KeyHolder):
    """Lets shares go, and writes the entries down nowhere."""

    def _became_durable(self, files: Mapping[str, bytes | None]) -> None:
        super()._became_durable({name: data for name, data in files.items() if not name.startswith("entry/")})


class Discreet(KeyHolder):
    """Reports nothing to the chain."""

    def spoken(self, operations: Sequence[Duty]) -> Sequence[Duty]:
        return [each for each in operations if not isinstance(each, ReleaseReceipt)]


class Hoarder(KeyHolder):
    """Keeps old shares."""

    def delete(self, name: SecretName) -> None:
        if name.kind != "share":
            super().delete(name)


class Lazy(KeyHolder):
    """Confirms a refresh with the share that it has."""

    def secret(self, effect: WriteSecret) -> bytes:
        key_epoch, share_epoch = effect.name.sharing
        old = self.disk.names(f"share-{key_epoch}-{share_epoch - 1}-")
        return (old and effect.name.kind == "share" and self.disk.get(old[0])) or effect.secret


class Diverter(KeyHolder):
    """Seals to another key than the one that the access has bound."""

    def shares(self, promise: Promise) -> Answer | Code:
        genuine = release.share_of

        def elsewhere(entry: ReleaseEntry, *rest: object) -> bytes:
            mine = key_release.Access(entry.access.access_id, BoxSecret(b"\1" * 32).public)
            return genuine(ReleaseEntry(mine, entry.label, entry.capsule), *rest)  # type: ignore[arg-type]

        release.share_of = elsewhere  # type: ignore[assignment]
        try:
            return super().shares(promise)
        finally:
            release.share_of = genuine


@pytest.mark.parametrize(
    ("kind", "rule"),
    [(Forgetful, "I-9"), (Discreet, "is reported|I-9"), (Hoarder, "I-10"), (Lazy, "I-10"), (Diverter, "I-5")],
)
def test_a_validator_that_breaks_a_rule_is_caught(kind: type[KeyHolder], rule: str) -> None:
    """I-5, I-9, I-10: with all honest validators doing so, the observer says which rule that was."""
    ward = Ward()
    ward.honest = kind
    with pytest.raises(InvariantBroken, match=rule):
        run_ward(draw(1, 4, "calm", 60), ward)


def test_a_release_rule_that_is_gone_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """I-1, I-2: the observer's own account of the chain notices what the validators no longer ask."""

    def allows_all(decided: Access, state: StateView, now: Moment) -> Code:
        return Code.OK

    monkeypatch.setattr(release, "_standing", allows_all)
    with pytest.raises(InvariantBroken, match=r"I-[12]"):
        for seed in range(4):
            run_ward(draw(seed, 4, "calm", 90), Ward())


@pytest.mark.attack("T62")
def test_a_secret_release_is_found_by_who_has_the_share(without: Without) -> None:
    """I-9: shares of a validator that reports nothing are as good as any; whoever compares them with the reports on
    the chain names it, and nobody else."""
    with without.setup("a comparison of the shares that readers hold with the reports on the chain"):
        result = run_ward(draw(2, 4, "calm", 120), Ward({1: liars.LyingHolder}))
        assert result.reached["lie of LyingHolder: secret"] and result.reached["record opened"]
    assert result.reached["audit names a secret release"] == 1
