"""What liars try with capsules, shares and ceremonies: each attack works without its one check."""

import pytest
from msgspec.structs import replace

from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Refused
from p2pledger.threshold import capsule, dkg, group, proofs, reshare, sharing
from p2pledger.threshold.capsule import CAPSULE_BYTES_MAX, Capsule, Label
from p2pledger.threshold.dkg import Deal, Phase
from p2pledger.threshold.group import SECOND_GENERATOR, base_times, random_scalar, times
from p2pledger.threshold.key_release import Access, share_context
from p2pledger.threshold.long_term import ReleasedShare
from p2pledger.threshold.one_time import OneTime
from p2pledger.threshold.proofs import prove_equal_logs
from p2pledger.threshold.sealing import BoxSecret, seal
from p2pledger.threshold.sharing import Polynomial
from tests.attack import Without
from tests.unit.threshold.stage import (
    ACCESS,
    CONTENT_KEY,
    LABEL,
    READER,
    Keepers,
    Table,
    finished,
    long_term,
    one_time,
    random_of,
    resharing,
    seats,
    spoiled_box,
    table,
)

ORDER = 2**252 + 27742317777372353535851937790883648493
MOVES = {
    "record": replace(LABEL, index=4),
    "batch": replace(LABEL, batch_id=b"E" * 16),
    "patient": replace(LABEL, pid=b"Q" * 16),
    "custodian": replace(LABEL, custodian=b"D" * 16),
    "chain": replace(LABEL, chain=sha256(b"another chain")),
    "purpose": replace(LABEL, purpose="recovery"),
}


def written() -> bytes:
    return long_term(4).release.wrap(CONTENT_KEY, LABEL, random_of("writer"))


def stolen(moved: Label) -> bytes:
    """The content key of somebody else's capsule, opened as if it were one's own record's.

    Its wrapping is bound to the true label, which the thief knows: what it needs is x·U, whatever it was released for.
    """
    keepers, foreign = long_term(4), written()
    parts = decode(Capsule, foreign, CAPSULE_BYTES_MAX)
    images = {}
    for holder, seat in zip(keepers.holders, seats(4), strict=True):
        holder.release(foreign, moved, ACCESS, random_of("release"))  # each of them would send this to the thief
        images[holder.index] = times(group.as_scalar(finished(4).share(seat)), group.as_point(parts.u))
    secret = sharing.combine_points({index: images[index] for index in (1, 2, 3)})
    return capsule.open_capsule(foreign, LABEL, secret)


@pytest.mark.attack("T60")
@pytest.mark.parametrize("where", MOVES)
def test_a_capsule_is_moved_to_another_label(where: str, without: Without) -> None:
    with without(capsule.check_capsule, "if _challenge(label, capsule.wrapped, u, u_bar, first, second) != e"):
        assert stolen(MOVES[where]) == CONTENT_KEY
    with pytest.raises(ProofError, match="not made for"):
        stolen(MOVES[where])


@pytest.mark.attack("T60")
def test_a_foreign_point_goes_into_a_capsule_of_ones_own(without: Without) -> None:
    """Without knowing r there is no proof for another label: the thief proves what it can, about another point."""
    foreign = decode(Capsule, written(), CAPSULE_BYTES_MAX)
    mine = replace(LABEL, pid=b"Q" * 16)
    own = decode(Capsule, long_term(4).release.wrap(CONTENT_KEY, mine, random_of("thief")), CAPSULE_BYTES_MAX)
    forged = encode(replace(own, u=foreign.u, u_bar=foreign.u_bar))
    with without(capsule.check_capsule, "if _challenge(label, capsule.wrapped, u, u_bar, first, second) != e"):
        assert capsule.check_capsule(forged, mine) == foreign.u
    with pytest.raises(ProofError):
        capsule.check_capsule(forged, mine)


@pytest.mark.attack("T60")
def test_a_capsule_has_one_spelling(without: Without) -> None:
    """z + the order is the same number: a second capsule that nobody committed to."""
    good = decode(Capsule, written(), CAPSULE_BYTES_MAX)
    z = int.from_bytes(good.z, "little") + ORDER
    twin = encode(replace(good, z=z.to_bytes(32, "little")))
    with without(group.as_scalar, "if len(data) != 32 or data == _ZERO"):
        assert capsule.check_capsule(twin, LABEL) == good.u
    with pytest.raises(InvalidInput, match="scalar"):
        capsule.check_capsule(twin, LABEL)


@pytest.mark.attack("T60")
def test_a_one_time_capsule_is_moved_to_another_label(without: Without) -> None:
    """Its boxes are sealed for their label: with the precaution left out, holders open them under any."""
    moved = MOVES["patient"]
    keepers = one_time(4)
    foreign = keepers.release.wrap(CONTENT_KEY, LABEL, random_of("writer"))
    with without.setup("the label in what a box is sealed for"):
        shares = keepers.shares(foreign)  # what holders say who do not look: the shares are the same for all labels
        assert keepers.release.open(foreign, LABEL, ACCESS, READER, shares).content_key == CONTENT_KEY
    for holder in keepers.holders:
        with pytest.raises(ProofError, match="not sealed for"):
            holder.release(foreign, moved, ACCESS, random_of("release"))


@pytest.mark.attack("T61")
def test_a_share_is_sealed_to_the_readers_key_and_to_nothing_else(without: Without) -> None:
    """CALYPSO's code adds the reader's point to U: Xc = U₂ − U₁ makes a permitted read of record 1 open record 2."""
    other_label = replace(LABEL, index=9)
    first = decode(Capsule, written(), CAPSULE_BYTES_MAX)
    keepers = long_term(4)
    other_key = sha256(b"another content key")
    second_bytes = keepers.release.wrap(other_key, other_label, random_of("other writer"))
    second = decode(Capsule, second_bytes, CAPSULE_BYTES_MAX)
    chosen = group.minus(group.as_point(second.u), group.as_point(first.u))
    with without.setup("no addition of what the reader has chosen"):
        blinded = group.plus(group.as_point(first.u), chosen)
        images = {
            index: times(group.as_scalar(finished(4).share(seat)), blinded)
            for index, seat in enumerate(seats(4)[:3], start=1)
        }
        assert capsule.open_capsule(second_bytes, other_label, sharing.combine_points(images)) == other_key
    shares = keepers.shares(written(), LABEL, Access(ACCESS.access_id, READER.public))
    opened = keepers.release.open(written(), LABEL, ACCESS, READER, shares)
    assert opened.content_key == CONTENT_KEY
    with pytest.raises(InvalidInput):
        capsule.open_capsule(second_bytes, other_label, group.as_point(first.u))


@pytest.mark.attack("T62")
def test_a_validator_lies_about_its_share(without: Without) -> None:
    """A share of something else, with a proof of something else: the reader gets nothing, and blames nobody."""
    keepers, sealed = long_term(4), written()
    shares = keepers.shares(sealed)
    liar = _lying_share(keepers, sealed)
    with (
        without(proofs.check_equal_logs, "if _challenge(context, public, base, image, first, second) != e"),
        pytest.raises(InvalidInput, match="do not open"),
    ):
        keepers.release.open(sealed, LABEL, ACCESS, READER, {**shares, 1: liar})
    opened = keepers.release.open(sealed, LABEL, ACCESS, READER, {**shares, 1: liar})
    assert (opened.content_key, opened.wrong) == (CONTENT_KEY, (1,))


def _lying_share(keepers: Keepers, sealed: bytes) -> bytes:
    random = random_of("liar")
    secret = random_scalar(random)
    u = capsule.check_capsule(sealed, LABEL)
    context = share_context(sealed, LABEL, ACCESS, 1, 0)
    image = times(secret, u)
    proof = prove_equal_logs(secret, base_times(secret), u, image, context, random)
    return seal(ACCESS.reader, encode(ReleasedShare(image, proof)), context, random)


@pytest.mark.attack("T62")
def test_a_holder_of_one_time_shares_lies(without: Without) -> None:
    keepers = one_time(4)
    sealed = keepers.release.wrap(CONTENT_KEY, LABEL, random_of("writer"))
    random = random_of("liar")
    liar = seal(ACCESS.reader, random_scalar(random), share_context(sealed, LABEL, ACCESS, 1, 0), random)
    shares = {**keepers.shares(sealed), 1: liar}
    with (
        without(sharing.check_share, "if base_times(share) != public_share(commitments, index)"),
        pytest.raises(InvalidInput, match="do not open"),
    ):
        keepers.release.open(sealed, LABEL, ACCESS, READER, shares)
    assert keepers.release.open(sealed, LABEL, ACCESS, READER, shares).wrong == (1,)


@pytest.mark.attack("T62")
def test_a_writer_seals_shares_that_do_not_fit(without: Without) -> None:
    """The deposit check: a holder notices at once that its share is on no common polynomial, not years later."""
    keepers = one_time(4)
    parts, _ = _one_time(keepers).parse(keepers.release.wrap(CONTENT_KEY, LABEL, random_of("writer")))
    other = Polynomial.through(random_scalar(random_of("other")), 3, random_of("other")).commitments()
    spoiled = encode(replace(parts, commitments=other))
    with without(sharing.check_share, "if base_times(share) != public_share(commitments, index)"):
        keepers.holders[0].check(spoiled, LABEL)
    with pytest.raises(ProofError, match="not on the committed polynomial"):
        keepers.holders[0].check(spoiled, LABEL)


def _one_time(keepers: Keepers) -> OneTime:
    assert isinstance(keepers.release, OneTime)
    return keepers.release


# Points


SMALL = {
    "zero": bytes(32),
    "identity": (1).to_bytes(32, "little"),
    "order 2": (2**255 - 20).to_bytes(32, "little"),
    "order 8": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    "not canonical": (2**255 - 18).to_bytes(32, "little"),
}


@pytest.mark.attack("T63")
@pytest.mark.parametrize("kind", SMALL)
def test_a_commitment_that_is_no_point_of_the_group(kind: str, without: Without) -> None:
    """In a deal: with the check off the ceremony takes it, and its shares can never be verified."""
    stage = table(4)
    stage.join()
    seat = seats(4)[0]
    honest = stage.participants[seat].deal(stage.ceremony, seat)
    bad = replace(honest, commitments=(SMALL[kind], *honest.commitments[1:]))
    with without(group.as_point, "if len(data) != 32 or not crypto_core_ed25519_is_valid_point(data)"):
        assert dkg.deal(stage.ceremony, seat, bad).dealt == (1,)
    with pytest.raises(Refused) as refused:
        dkg.deal(stage.ceremony, seat, bad)
    assert refused.value.code == Code.E_DEAL


@pytest.mark.attack("T63")
def test_a_receivers_key_of_small_order(without: Without) -> None:
    """What is sealed to it, everybody opens: X25519 with it is zero for every secret."""
    stage = table(4)
    with without(dkg.join, "if not is_box_key(box)"):
        assert dkg.join(stage.ceremony, seats(4)[0], bytes(32)).joined == (1,)
    with pytest.raises(Refused) as refused:
        dkg.join(stage.ceremony, seats(4)[0], bytes(32))
    assert refused.value.code == Code.E_FORMAT


@pytest.mark.attack("T63")
def test_a_capsules_points_are_checked_before_a_secret_touches_them(without: Without) -> None:
    good = decode(Capsule, written(), CAPSULE_BYTES_MAX)
    bad = encode(replace(good, u=SMALL["order 8"]))
    with (
        without(group.as_point, "if len(data) != 32 or not crypto_core_ed25519_is_valid_point(data)"),
        pytest.raises(ProofError, match="not in the group"),
    ):  # libsodium's own check is what is left
        capsule.check_capsule(bad, LABEL)
    with pytest.raises(InvalidInput, match="prime-order"):
        capsule.check_capsule(bad, LABEL)
    assert group.as_point(SECOND_GENERATOR) == SECOND_GENERATOR


# Ceremonies


def cheated() -> Table:
    cheat = seats(4)[0]
    return table(4, lies={cheat: spoiled_box(2)}, stubborn=frozenset({cheat}))


@pytest.mark.attack("T64")
def test_a_dealer_cheats_one_receiver_and_does_not_answer(without: Without) -> None:
    """If it stayed, its victim would have no share: with f silent ones beside it, nobody opens anything."""
    with without(dkg.Ceremony.qualified.fget, "dealer not in self.excluded"):  # type: ignore[attr-defined]
        stage = cheated()
        with pytest.raises(ProofError, match="none was shown"):
            stage.run()
    assert cheated().run().ceremony.phase == Phase.ACTIVE


@pytest.mark.attack("T64")
def test_a_dealer_answers_with_a_share_that_does_not_fit(without: Without) -> None:
    stage = cheated()
    for phase in (stage.join, stage.deal, stage.report):
        phase()
    other = random_scalar(random_of("other"))
    with without(sharing.check_share, "if base_times(share) != public_share(commitments, index)"):
        answered = dkg.justify(stage.ceremony, seats(4)[0], 2, other, stage.deals[1])
        assert answered.qualified == (1, 2, 3, 4)
    with pytest.raises(Refused) as refused:
        dkg.justify(stage.ceremony, seats(4)[0], 2, other, stage.deals[1])
    assert refused.value.code == Code.E_DEAL


@pytest.mark.attack("T64")
def test_a_dealer_deals_another_secret_in_a_resharing(without: Without) -> None:
    """It could choose what the joint key becomes: all capsules would be lost."""
    stage = resharing(finished(4))
    stage.join()
    seat = seats(4)[0]
    stranger = table(4)
    stranger.join()
    other: Deal = stranger.participants[seat].deal(stranger.ceremony, seat)
    with without(reshare.check_origin, "if commitments[0] != source.public_share(dealer)"):
        assert dkg.deal(stage.ceremony, seat, other).dealt == (1,)
    with pytest.raises(Refused) as refused:
        dkg.deal(stage.ceremony, seat, other)
    assert refused.value.code == Code.E_DEAL


@pytest.mark.attack("T64")
def test_too_few_dealers_are_no_key(without: Without) -> None:
    """f dealers alone would know the whole secret."""
    stage = table(4)
    stage.join()
    dealt = dkg.deal(stage.ceremony, seats(4)[0], stage.participants[seats(4)[0]].deal(stage.ceremony, seats(4)[0]))
    late = dealt.since_ms + dealt.phase_ms
    with without.setup("a ceremony fails with fewer dealers than shares are needed"):
        alone = replace(dealt, threshold=1).at(late)
        assert alone.phase == Phase.REPORT
    assert dealt.at(late).phase == Phase.FAILED


@pytest.mark.attack("T65")
def test_complaint_spam(without: Without) -> None:
    """One report a seat. With the check off the list of complaints grows with every message."""
    stage = table(4)
    stage.join()
    stage.deal()
    liar = seats(4)[3]
    accused = dkg.report(stage.ceremony, liar, (1,))
    with without(dkg.report, "if receiver in ceremony.reported"):
        assert len(dkg.report(accused, liar, (1, 2, 3)).complaints) == 4
    with pytest.raises(Refused) as refused:
        dkg.report(accused, liar, (1, 2, 3))
    assert refused.value.code == Code.E_DUP


@pytest.mark.attack("T65")
def test_complaints_about_nobody(without: Without) -> None:
    stage = table(4, silent=frozenset(seats(4)[:1]))
    stage.join()
    stage.deal()
    with without(dkg.report, "not set(cheats) <= set(ceremony.dealt)"):
        assert dkg.report(stage.ceremony, seats(4)[3], (1,)).complaints == ((1, 4),)
    with pytest.raises(Refused) as refused:
        dkg.report(stage.ceremony, seats(4)[3], (1,))
    assert refused.value.code == Code.E_FORMAT


@pytest.mark.attack("T65")
def test_a_deal_is_changed_after_the_others_have_spoken(without: Without) -> None:
    """The last one could choose its polynomial by theirs, and receivers would hold shares of different ones."""
    stage = table(4)
    stage.join()
    seat = seats(4)[0]
    first = stage.participants[seat].deal(stage.ceremony, seat)
    dealt = dkg.deal(stage.ceremony, seat, first)
    with without(dkg.deal, "if dealer in ceremony.dealt"):
        assert dkg.deal(dealt, seat, first).dealt == (1, 1)
    with pytest.raises(Refused) as refused:
        dkg.deal(dealt, seat, first)
    assert refused.value.code == Code.E_DUP


@pytest.mark.attack("T65")
def test_a_key_is_copied_from_another_seat(without: Without) -> None:
    """Two seats with one key: one of them answers for both."""
    stage = table(4)
    key = BoxSecret(sha256(b"a key")).public
    joined = dkg.join(stage.ceremony, seats(4)[0], key)
    with without(dkg.join, "box in ceremony.boxes"):
        assert dkg.join(joined, seats(4)[1], key).joined == (1, 2)
    with pytest.raises(Refused) as refused:
        dkg.join(joined, seats(4)[1], key)
    assert refused.value.code == Code.E_DUP
