"""F-23: the files that patient, guardians and a new wallet hand to each other, and what their bytes do on a chain."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2pledger.client import guardians
from p2pledger.client.guardians import Acceptance, GuardianApproval, GuardianCard, Invitation, RecoveryRequest
from p2pledger.client.keyring import Persona, Wallet, create_wallet
from p2pledger.health import recovery_release, release
from p2pledger.health.guardian_operations import RecoveryFinalize
from p2pledger.health.release import Moment
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import ChainId
from p2pledger.threshold.dkg import CeremonyId
from p2pledger.threshold.key_release import TooFewShares
from tests.unit.execution.ledger import hash32, id16
from tests.unit.health.ceremonies import hold, keepers_of
from tests.unit.health.world import BERG, DAY_MS, FOREVER_MS, TAL, World

PEOPLE = ("aunt", "brother", "cousin")
DELAY_MS = 3 * DAY_MS


@dataclass
class Town:
    """A patient of Berg and Tal, three people with wallets, and validators with a joint key."""

    world: World = field(default_factory=World)
    patient: Wallet = field(default_factory=lambda: Wallet(hash32("lost wallet"), (hash32("an older secret"),)))
    people: dict[str, Wallet] = field(default_factory=lambda: {name: Wallet(hash32(name)) for name in PEOPLE})

    def __post_init__(self) -> None:
        self.chain = self.world.chain
        self.keepers = keepers_of(self.world)
        self.active = hold(self.world, CeremonyId(1, 0, 0), self.keepers)
        for name, sponsor in (("Berg", BERG), ("Tal", TAL)):
            persona = self.patient.at(id16(name))
            operation = persona.registration("patient", hash32("proof"))
            assert self.world.submit(persona.signing, operation, cosigners=[sponsor]) == Code.OK

    @property
    def personas(self) -> list[Persona]:
        return [self.patient.at(id16(name)) for name in ("Berg", "Tal")]

    def acceptances(self) -> list[Acceptance]:
        return [guardians.accept(guardians.invite(self.personas, self.chain), who) for who in self.people.values()]

    def named(self) -> tuple[list[GuardianCard], GuardianCard]:
        """Guardians at both custodians, and their cards."""
        accepted, made = self.acceptances(), []
        for persona in self.personas:
            boxes = self.patient.box_secrets(persona.organisation)
            escrow = guardians.keep_boxes(persona, boxes, self.chain, self.active)
            one = guardians.name_guardians(persona, accepted, 2, DELAY_MS, escrow)
            assert self.world.submit(persona.signing, one.operation) == Code.OK
            made.append(one)
        return guardians.cards_of(made, self.chain)

    def recovered(self, cards: list[GuardianCard], spare: GuardianCard) -> Wallet:
        """A new wallet in the place of the lost one, by the first two guardians."""
        request, new = guardians.ask(spare, Wallet(hash32("new wallet")), FOREVER_MS)
        files = [
            guardians.approve_request(request, card, self.people[name])
            for name, card in zip(PEOPLE[:2], cards, strict=False)
        ]
        for place in request.places:
            start = guardians.start_recovery(place, request, files)
            assert self.world.submit(new.at(place.organisation).signing, start) == Code.OK
        self.world.now_ms += DELAY_MS
        for place in request.places:
            assert self.world.submit(BERG, RecoveryFinalize(place.pid, place.recovery)) == Code.OK
        return new

    def shares(self, card: GuardianCard, number: int, wallet: Wallet) -> dict[int, bytes]:
        """What the validators answer to the new wallet."""
        request = guardians.open_request(card.places[number], wallet)
        now = Moment(self.world.now_ms - 1_000, self.world.now_ms, 10_000, 0)
        judged = recovery_release.may_share(self.world.state, self.chain, request, now)
        assert isinstance(judged, tuple), judged
        holders = [keeper.holder() for keeper in self.keepers if keeper.shares]
        (capsule,) = recovery_release.capsules_of(request)
        return {one.index: release.share_of(judged[0], capsule, one, lambda n: sha256(b"r")[:n]) for one in holders}


@pytest.fixture
def town() -> Town:
    return Town()


def test_a_recovered_wallet_has_every_box_key_of_the_lost_one(town: Town) -> None:
    """Those of before a rotation, too; at each custodian those that were used there."""
    cards, spare = town.named()
    new = town.recovered(cards, spare)
    for number, persona in enumerate(town.personas):
        shares = town.shares(spare, number, new)
        boxes, opened = guardians.open_boxes(spare.places[number], new, town.chain, town.active, shares)
        assert boxes == town.patient.box_secrets(persona.organisation) and len(boxes) == 2
        assert opened.wrong == ()
        new = new.with_recovered(persona.organisation, boxes)
        olds = [persona.box.public, *(one.public for one in town.patient.former_boxes(persona.organisation))]
        assert [one.public for one in new.former_boxes(persona.organisation)] == olds


def test_too_few_shares_open_nothing_and_the_old_wallet_neither(town: Town) -> None:
    cards, spare = town.named()
    new = town.recovered(cards, spare)
    shares = town.shares(spare, 0, new)
    two = {index: shares[index] for index in sorted(shares)[:2]}
    with pytest.raises(TooFewShares):
        guardians.open_boxes(spare.places[0], new, town.chain, town.active, two)
    with pytest.raises(TooFewShares):
        guardians.open_boxes(spare.places[0], town.patient, town.chain, town.active, shares)


def test_what_is_recovered_outlives_the_file_and_rotations(tmp_path: Path) -> None:
    organisation, secret = id16("Berg"), hash32("an old box")
    wallet = Wallet(hash32("new")).with_recovered(organisation, (secret,))
    path = tmp_path / "folder" / "wallet"
    create_wallet(path, wallet, None)
    kept = Wallet.load(path)
    assert kept == wallet and kept.box_secrets(organisation)[-1] == secret
    rotated = kept.rotating().rotated()
    assert rotated.box_secrets(organisation)[-1] == secret and len(rotated.box_secrets(organisation)) == 3


def test_guardians_are_linked_by_nothing(town: Town) -> None:
    """Another key at each pid, another salt for each; no byte of one card's place is in another's but the capsule."""
    accepted = town.acceptances()
    keys = [place.guardian for acceptance in accepted for place in acceptance.places]
    salts = [place.salt for acceptance in accepted for place in acceptance.places]
    assert len(set(keys)) == len(set(salts)) == 6
    assert {key.public for key in [Wallet(hash32("aunt")).at(id16("Berg")).signing]}.isdisjoint(keys)


def test_a_guardian_that_rotated_its_wallet_still_guards(town: Town) -> None:
    cards, spare = town.named()
    request, _ = guardians.ask(spare, Wallet(hash32("new wallet")), FOREVER_MS)
    before = guardians.approve_request(request, cards[0], town.people["aunt"])
    rotated = town.people["aunt"].rotating()
    assert guardians.approve_request(request, cards[0], rotated) == before
    assert guardians.approve_request(request, cards[0], rotated.rotated()) == before
    with pytest.raises(InvalidInput, match="not the guardian"):
        guardians.approve_request(request, cards[0], town.people["brother"])
    with pytest.raises(InvalidInput, match="no guardian's"):
        guardians.approve_request(request, spare, town.people["aunt"])


def test_acceptances_are_checked(town: Town) -> None:
    """A key that nobody proves, a place left out, the same guardian twice, and numbers that cannot be."""
    persona, accepted = town.personas[0], town.acceptances()

    def named(*files: Acceptance, threshold: int = 2) -> None:
        guardians.name_guardians(persona, files, threshold, DELAY_MS, None)

    named(*accepted)
    place = accepted[0].places[0]
    forged = replace(accepted[0], places=(replace(place, guardian=SigningKey(hash32("other")).public),))
    elsewhere = replace(accepted[0], places=accepted[0].places[1:])
    for files, words in (
        ((forged, *accepted[1:]), "not proven"),
        ((elsewhere, *accepted[1:]), "invite this guardian there"),
        ((accepted[0], accepted[0]), "stands in two"),
        (accepted[:1], "1 guardians"),
    ):
        with pytest.raises(InvalidInput, match=words):
            named(*files)
    with pytest.raises(InvalidInput, match="at least 2"):
        named(*accepted, threshold=1)


def test_every_file_survives_being_handed_over(town: Town) -> None:
    cards, spare = town.named()
    invitation = guardians.invite(town.personas, town.chain)
    request, _ = guardians.ask(spare, Wallet(hash32("new wallet")), FOREVER_MS)
    approval = guardians.approve_request(request, cards[0], town.people["aunt"])
    for kind, made in (
        (Invitation, invitation),
        (Acceptance, guardians.accept(invitation, town.people["aunt"])),
        (GuardianCard, cards[1]),
        (GuardianCard, spare),
        (RecoveryRequest, request),
        (GuardianApproval, approval),
    ):
        text = made.dump()
        assert guardians.load(kind, text, town.chain) == made
        with pytest.raises(InvalidInput, match="chain"):
            guardians.load(kind, text, ChainId(hash32("another chain")))
        with pytest.raises(InvalidInput, match="not a p2pledger/"):
            guardians.load(kind, text.replace('"chain"', '"chains"'), town.chain)
        others = {Invitation, Acceptance, GuardianCard, RecoveryRequest, GuardianApproval} - {kind}
        for other in others:
            with pytest.raises(InvalidInput, match="not a p2pledger/"):
                guardians.load(other, text, town.chain)
    with pytest.raises(InvalidInput, match="the limit"):
        guardians.load(Invitation, " " * 2**21, town.chain)


def test_person_and_guardian_compare_a_word(town: Town) -> None:
    """It changes with every key in the request: who sends another request to a guardian has another word."""
    _, spare = town.named()
    request, _ = guardians.ask(spare, Wallet(hash32("new wallet")), FOREVER_MS)
    other, _ = guardians.ask(spare, Wallet(hash32("a thief's wallet")), FOREVER_MS)
    assert request.word != other.word
    assert request.word == guardians.load(RecoveryRequest, request.dump(), town.chain).word


def test_approvals_of_different_things_are_not_mixed(town: Town) -> None:
    cards, spare = town.named()
    aunt, brother = town.people["aunt"], town.people["brother"]
    request, _ = guardians.ask(spare, Wallet(hash32("new wallet")), FOREVER_MS)
    recover = guardians.approve_request(request, cards[0], aunt)
    until_ms = town.world.now_ms + DAY_MS
    freeze = guardians.approve_freeze(cards[1], brother, until_ms)
    pid = request.places[0].pid
    with pytest.raises(InvalidInput, match="one approval is to freeze"):
        guardians.start_recovery(request.places[0], request, [recover, freeze])
    with pytest.raises(InvalidInput, match="recovery start"):
        guardians.freezing(pid, [recover])
    with pytest.raises(InvalidInput, match="one approval is to freeze"):
        guardians.freezing(pid, [guardians.approve_freeze(cards[0], aunt, until_ms, is_end=True), freeze])
    with pytest.raises(InvalidInput, match="no guardian has approved"):
        guardians.freezing(id16("somebody else"), [freeze])
    frozen = guardians.freezing(pid, [freeze, guardians.approve_freeze(cards[0], aunt, until_ms)])
    assert town.world.submit(TAL, frozen) == Code.OK
    signed = [
        guardians.approve_freeze(card, town.people[name], until_ms, is_end=True)
        for name, card in zip(PEOPLE, cards, strict=True)
    ]
    thawed = guardians.freezing(pid, signed)
    assert town.world.submit(TAL, thawed) == Code.OK


def test_where_nothing_was_kept_nothing_opens(town: Town) -> None:
    accepted = town.acceptances()
    named = guardians.name_guardians(town.personas[0], accepted, 2, DELAY_MS, None)
    cards, spare = guardians.cards_of([named], town.chain)
    assert {card.places[0].escrow for card in cards} == {None}
    with pytest.raises(Rejected) as refused:
        guardians.open_request(spare.places[0], town.patient)
    assert refused.value.code == Code.E_CAPSULE


def test_a_card_that_was_changed_is_found_out(town: Town) -> None:
    """The capsule's hash is on the chain; what it seals is authenticated with the capsule."""
    cards, spare = town.named()
    new = town.recovered(cards, spare)
    place, shares = spare.places[0], town.shares(spare, 0, new)
    assert place.escrow is not None
    sealed = bytearray(place.escrow.sealed)
    sealed[-1] ^= 1
    changed = replace(place, escrow=replace(place.escrow, sealed=bytes(sealed)))
    with pytest.raises(InvalidInput):
        guardians.open_boxes(changed, new, town.chain, town.active, shares)
