"""What both ways of keeping a key promise, on each of them."""

from itertools import combinations

import pytest
from msgspec.structs import replace

from p2pledger.chain.validators import faults
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.threshold.capsule import CAPSULE_BYTES_MAX, Capsule, Label
from p2pledger.threshold.key_release import Access, TooFewShares
from p2pledger.threshold.one_time import OneTime
from p2pledger.threshold.sealing import BoxSecret, Sealer, seal
from tests.unit.threshold.stage import (
    ACCESS,
    BACK_ENDS,
    CONTENT_KEY,
    LABEL,
    READER,
    SIZES,
    Keepers,
    long_term,
    random_of,
)


@pytest.fixture(params=[(kind, n) for kind in BACK_ENDS for n in SIZES], ids=lambda it: f"{it[0]}-{it[1]}")
def keepers(request: pytest.FixtureRequest) -> Keepers:
    kind, n = request.param
    return BACK_ENDS[kind](n)


@pytest.fixture
def capsule(keepers: Keepers) -> bytes:
    return keepers.release.wrap(CONTENT_KEY, LABEL, random_of("writer"))


def other_labels() -> list[Label]:
    """Each field changed alone: I-4."""
    return [
        replace(LABEL, purpose="recovery"),
        replace(LABEL, chain=sha256(b"another chain")),
        replace(LABEL, custodian=b"D" * 16),
        replace(LABEL, pid=b"Q" * 16),
        replace(LABEL, batch_id=b"E" * 16),
        replace(LABEL, index=4),
        replace(LABEL, key_epoch=2),
    ]


def test_any_t_holders_open_it(keepers: Keepers, capsule: bytes) -> None:
    """t = n − f: as many as agreement needs, so what is available to agree is available to open."""
    shares = keepers.shares(capsule)
    n = len(keepers.holders)
    assert keepers.release.threshold == n - faults(n)
    for chosen in combinations(shares, keepers.release.threshold):
        opened = keepers.release.open(capsule, LABEL, ACCESS, READER, {index: shares[index] for index in chosen})
        assert (opened.content_key, opened.wrong) == (CONTENT_KEY, ())


def test_fewer_than_t_do_not_and_the_missing_are_named(keepers: Keepers, capsule: bytes) -> None:
    shares = keepers.shares(capsule)
    few = dict(list(shares.items())[: keepers.release.threshold - 1])
    with pytest.raises(TooFewShares) as caught:
        keepers.release.open(capsule, LABEL, ACCESS, READER, few)
    assert caught.value.missing == tuple(index for index in shares if index not in few)
    assert (caught.value.good, caught.value.wrong) == (tuple(few), ())


def test_wrong_shares_are_named_and_others_take_their_place(keepers: Keepers, capsule: bytes) -> None:
    n = len(keepers.holders)
    shares = keepers.shares(capsule)
    shares[1] = shares[2]  # holder 1 repeats what holder 2 said
    opened = keepers.release.open(capsule, LABEL, ACCESS, READER, shares)
    assert (opened.content_key, opened.wrong) == (CONTENT_KEY, (1,))
    for liar in range(1, n + 1):
        shares[liar] = shares[liar][:-1] + bytes([shares[liar][-1] ^ 1])
    with pytest.raises(TooFewShares) as caught:
        keepers.release.open(capsule, LABEL, ACCESS, READER, shares)
    assert caught.value.wrong == tuple(range(1, n + 1))


def test_a_stranger_is_no_holder(keepers: Keepers, capsule: bytes) -> None:
    shares = keepers.shares(capsule)
    stranger = len(shares) + 1
    with pytest.raises(TooFewShares) as caught:
        keepers.release.open(capsule, LABEL, ACCESS, READER, {stranger: shares[1], 0: shares[2]})
    assert caught.value.wrong == (0, stranger)


def test_a_capsule_serves_its_own_label_alone(keepers: Keepers, capsule: bytes) -> None:
    """I-4: under any other record, patient, custodian, chain or epoch no holder releases anything."""
    for label in other_labels():
        for holder in keepers.holders:
            with pytest.raises((InvalidInput, ProofError)):
                holder.release(capsule, label, ACCESS, random_of("release"))
            with pytest.raises((InvalidInput, ProofError)):
                holder.check(capsule, label)


def test_a_share_serves_its_own_access_and_reader_alone(keepers: Keepers, capsule: bytes) -> None:
    """I-5: released for another access, or to another's key, it is a wrong share."""
    other = BoxSecret(sha256(b"another reader"))
    for access, reader in (
        (Access(b"Z" * 16, READER.public), READER),
        (Access(ACCESS.access_id, other.public), READER),
        (Access(ACCESS.access_id, other.public), other),
    ):
        with pytest.raises(TooFewShares) as caught:
            keepers.release.open(capsule, LABEL, access, reader, keepers.shares(capsule))
        assert not caught.value.good


def test_shares_of_many_records_are_sealed_to_one_reader_at_once(keepers: Keepers) -> None:
    """One product with the reader's key serves all of them, and each opens in its own place alone."""
    labels = [LABEL, replace(LABEL, index=4)]
    capsules = [keepers.release.wrap(CONTENT_KEY, label, random_of("writer")) for label in labels]
    shares: list[dict[int, bytes]] = [{}, {}]
    for holder in keepers.holders:
        random = random_of(f"release {holder.index}")
        sealer = Sealer(READER.public, random)
        for place, label in enumerate(labels):
            shares[place][holder.index] = holder.release(capsules[place], label, ACCESS, random, sealer)
        assert shares[0][holder.index][:32] == shares[1][holder.index][:32], "the ephemeral key"
    for place, label in enumerate(labels):
        opened = keepers.release.open(capsules[place], label, ACCESS, READER, shares[place])
        assert (opened.content_key, opened.wrong) == (CONTENT_KEY, ())
        with pytest.raises(TooFewShares):
            keepers.release.open(capsules[place], label, ACCESS, READER, shares[1 - place])


def test_a_sealer_uses_no_key_twice_and_serves_no_other_reader(keepers: Keepers, capsule: bytes) -> None:
    """I-5, and two texts under one key would show their difference."""
    random = random_of("sealer")
    sealer = Sealer(READER.public, random)
    sealer.seal(b"one", b"context")
    with pytest.raises(AssertionError, match="twice"):
        sealer.seal(b"other", b"context")
    assert repr(sealer) == f"Sealer(reader={READER.public.hex()})"
    other = Access(ACCESS.access_id, BoxSecret(sha256(b"another reader")).public)
    with pytest.raises(AssertionError, match="another"):
        keepers.holders[0].release(capsule, LABEL, other, random, sealer)


def test_a_key_remembers_no_more_senders_than_fit(keepers: Keepers, capsule: bytes) -> None:
    """However many strangers seal to it, what comes from each still opens."""
    random = random_of("senders")
    sealed = [seal(READER.public, bytes([number]), b"context", random) for number in range(70)]
    assert [READER.open(one, b"context") for one in sealed + sealed] == [bytes([n]) for n in range(70)] * 2


def test_a_changed_capsule_serves_nobody(keepers: Keepers, capsule: bytes) -> None:
    """Any byte of it."""
    for place in range(0, len(capsule), 7):
        spoiled = capsule[:place] + bytes([capsule[place] ^ 1]) + capsule[place + 1 :]
        refusals = 0
        for holder in keepers.holders:
            try:
                holder.release(spoiled, LABEL, ACCESS, random_of("release"))
            except (InvalidInput, ProofError):
                refusals += 1
        if refusals == 0:  # a byte of what is wrapped, which holders of one-time shares cannot see: the reader does
            with pytest.raises(InvalidInput):
                keepers.release.open(spoiled, LABEL, ACCESS, READER, keepers.shares(spoiled))


def test_keys_and_holders_do_not_show_their_secrets(keepers: Keepers) -> None:
    assert [repr(holder) for holder in keepers.holders] == [
        f"{type(holder).__name__}(index={holder.index})" for holder in keepers.holders
    ]


@pytest.mark.parametrize("n", SIZES)
def test_a_long_term_capsule_is_small_whatever_the_number_of_holders(n: int) -> None:
    capsule = long_term(n).release.wrap(CONTENT_KEY, LABEL, random_of("writer"))
    assert len(capsule) == 187 <= CAPSULE_BYTES_MAX


def test_a_recovery_label_is_like_any_other() -> None:
    keepers = long_term(4)
    label = replace(LABEL, purpose="recovery", batch_id=bytes(16), index=0)
    capsule = keepers.release.wrap(CONTENT_KEY, label, random_of("writer"))
    opened = keepers.release.open(capsule, label, ACCESS, READER, keepers.shares(capsule, label))
    assert opened.content_key == CONTENT_KEY


def test_a_writer_who_wraps_nonsense_hurts_itself_alone() -> None:
    """Holders see a capsule that its writer made for this label; what it wraps shows at the reader."""
    keepers = long_term(4)
    other = long_term(5)
    capsule = other.release.wrap(CONTENT_KEY, LABEL, random_of("writer"))  # sealed to another joint key
    with pytest.raises(InvalidInput, match="do not open"):
        keepers.release.open(capsule, LABEL, ACCESS, READER, keepers.shares(capsule))


def test_holders_of_one_time_secrets_are_at_least_as_many_as_needed_and_distinct() -> None:
    keys = [BoxSecret(sha256(bytes([number]))).public for number in range(3)]
    for boxes, threshold in ((keys, 0), (keys, 4), ([], 0), ([*keys, keys[0]], 2)):
        with pytest.raises(InvalidInput):
            OneTime(boxes, threshold)


def test_the_fields_of_a_capsule_are_its_whole_size() -> None:
    assert Capsule.__struct_fields__ == ("u", "u_bar", "e", "z", "wrapped")
