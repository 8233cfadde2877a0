"""Steps 2 and 12: a key that the validators have together and none of them alone, put to the test with stolen homes."""

import shutil
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import trio

from p2pledger.client.joint_keys import newest
from p2pledger.client.records import SealedRecord, open_record, open_with_key
from p2pledger.demo.search import files_with, memory_has
from p2pledger.demo.stage import AGENCY, PATIENCE_S, A, Stage
from p2pledger.health.commitments import RecordRef, commit
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.release import label_of
from p2pledger.primitives.errors import InvalidInput
from p2pledger.storage.share_files import ShareFiles
from p2pledger.threshold.capsule import Label, check_capsule, open_capsule
from p2pledger.threshold.group import Scalar, as_scalar, base_times, times
from p2pledger.threshold.sharing import combine, combine_points

NEEDED = 3
"""t = n − f of four."""


async def make_joint_key(stage: Stage) -> None:
    """The nodes do it themselves, over the chain, as soon as they are linked."""
    narrator = stage.narrator
    narrator.step(2, "The four validators make a joint key over the chain; nobody ever has its secret")
    with trio.fail_after(PATIENCE_S):
        while (found := await newest(stage.clients[AGENCY]))[2] is None:
            await trio.sleep(0.1)
        while any(len(_secrets(home)) != 1 for home in stage.cluster.homes.values()):
            await trio.sleep(0.1)
    height, _, active = found
    assert active is not None
    stage.joint_key = active
    kept = {name for home in stage.cluster.homes.values() for name in _secrets(home)}
    narrator.check(
        f"any {active.key.threshold} of {active.key.holders} shares open what is sealed to it",
        (active.key.threshold, active.key.holders) == (NEEDED, len(stage.cluster.names)),
        f"key {active.key.public.hex()[:16]}…, proven at checkpoint {height}",
    )
    narrator.check(
        "each home holds one share of it; the seed that the share came from is erased", kept == {"share-1-0-0"}
    )


def _secrets(home: Path) -> list[str]:
    """What a home keeps of a ceremony: its seed until the end, and the share."""
    return [path.name for path in (home / "shares").iterdir() if not path.name.startswith(".")]


async def try_stolen_homes(stage: Stage, sealed: SealedRecord, erased: RecordRef, processes: dict[str, int]) -> None:
    """Combine, offline and with no validator's leave, what lies in two homes and in three; then look for the secret."""
    narrator, active = stage.narrator, stage.joint_key
    narrator.step(12, "A burglar takes homes and the vault, and combines what is in them")
    assert active is not None
    shares = {name: _stolen_share(stage, active, name) for name in stage.cluster.names}
    pairs, triples = [
        [_opens(stage, sealed, dict(shares[name] for name in names)) for names in combinations(shares, size)]
        for size in (NEEDED - 1, NEEDED)
    ]
    narrator.check(
        "with the vault and any two homes, a record that nobody asked for stays closed",
        not any(pairs) and not files_with(stage.cluster.homes.values(), _organisations_secrets(stage)),
        f"{len(pairs)} pairs of shares tried; no home holds an organisation's own key",
    )
    narrator.check(
        "with any three it opens: what no two can do, three organisations together could",
        all(triples),
        f"{len(triples)} triples tried",
    )
    boxes = [name for name in stage.cluster.names if _opens_with_box_key(stage, sealed, name)]
    narrator.check(
        "of the organisations' own keys, kept elsewhere, its custodian's alone opens it: who keeps it can read it",
        boxes == [A],
    )
    narrator.check(
        "the erased record opens for nobody: its capsule is gone, so that even four shares have nothing to open",
        erased.index not in {entry.index for entry in stage.vault(A).manifest(erased.batch_id).entries},
    )
    _look_for_secret(stage, active, shares, processes)


def _organisations_secrets(stage: Stage) -> list[bytes]:
    """The seeds of what organisations act and read with, as bytes and as their files have them."""
    offices = [member.layout.office for member in stage.cluster.members.values()]
    texts = [path.read_bytes().strip() for office in offices for path in sorted(office.iterdir())]
    assert len(texts) == 2 * len(offices) == len(files_with(offices, texts)), "the search finds them where they are"
    return [*texts, *(bytes.fromhex(text.decode()) for text in texts)]


def _stolen_share(stage: Stage, active: ActiveKey, name: str) -> tuple[int, Scalar]:
    """(index, share) out of a copy of what lies in a home."""
    copy = stage.folder / "stolen" / stage.cluster.homes[name].name
    shutil.copytree(stage.cluster.homes[name] / "shares", copy)
    card = next(card for card in stage.cluster.founding.genesis.cards if card.name == name)
    found = ShareFiles(copy, stage.cluster.founding.chain, card.node).load()
    shutil.rmtree(copy)
    (share,) = [secret for secret_name, secret in found.items() if secret_name.kind == "share"]
    index = active.index_of(card.validator)
    assert index is not None, "every founder is a validator"
    return index, as_scalar(share)


def _label(stage: Stage, sealed: SealedRecord) -> Label:
    custodian = stage.organisations[A].organisation
    return label_of(sealed.ref, stage.patient[A].did, custodian, stage.cluster.founding.chain, sealed.key_epoch)


def _opens(stage: Stage, sealed: SealedRecord, shares: dict[int, Scalar]) -> bool:
    """Whether these shares open the record, down to the bytes of its commitment."""
    label = _label(stage, sealed)
    u = check_capsule(sealed.capsule, label)
    secret = combine_points({index: times(share, u) for index, share in shares.items()})
    try:
        key = open_capsule(sealed.capsule, label, secret)
    except InvalidInput:
        return False
    data = open_with_key(sealed.object, sealed.ref, label.pid, label.custodian, key)
    return commit(sealed.salt, sealed.media_type, data) == sealed.proof.leaf.commitment


def _opens_with_box_key(stage: Stage, sealed: SealedRecord, name: str) -> bool:
    """Whether an organisation's box key opens it without any share."""
    manifest = stage.vault(A).manifest(sealed.ref.batch_id)
    try:
        open_record(sealed.object, sealed.ref, manifest, stage.organisations[name].custodian.box)
    except InvalidInput:
        return False
    return True


def _look_for_secret(
    stage: Stage, active: ActiveKey, shares: dict[str, tuple[int, Scalar]], processes: dict[str, int]
) -> None:
    """The secret exists here for the first time, to be searched for; the stolen shares show that the search finds."""
    narrator = stage.narrator
    secret = combine(dict(list(shares.values())[:NEEDED]))
    assert base_times(secret) == active.key.public, "three shares make the secret"
    homes: Sequence[Path] = list(stage.cluster.homes.values())
    own = [files_with([home], [share]) for home, (_, share) in zip(homes, shares.values(), strict=True)]
    narrator.check(
        "in the files of the four homes stands each one's own share, and nowhere the secret",
        all(len(found) == 1 for found in own) and not files_with(homes, [secret]),
    )
    wanted = [secret, *(share for _, share in shares.values())]
    try:
        seen = {name: memory_has(pid, wanted) for name, pid in processes.items()}
    except OSError as error:
        narrator.say(f"  the memory of the processes cannot be searched here: {error.strerror}")
        return
    expected = {name: [False, *(holder == name for holder in shares)] for name in processes}
    narrator.check(
        "in the memory of the running nodes and of the vault, too: each node has its own share, nobody the secret",
        seen == expected,
        f"{len(processes)} processes searched",
    )
    nodes = [processes[name] for name in stage.cluster.names]
    own_keys = _organisations_secrets(stage)
    found = [any(memory_has(pid, own_keys)) for pid in nodes]
    narrator.check("no node's process knows its organisation's keys", not any(found))
