"""What is said passes the door of the core if it is right, and does not if one thing in it is wrong (P2 to P12)."""

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import TypeAlias

from msgspec.structs import replace

from p2pledger.chain.statement import Claim
from p2pledger.consensus.messages import (
    Certificate,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
    Vote,
)
from p2pledger.consensus.verification import verify_message
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BlockHash, ChainId, Epoch, Height, ValidatorId, View
from tests.seeded.voices import EPOCH, Voices, claim_of, noise, require

MESSAGES = 12
Spoilt: TypeAlias = tuple[str, str, Signed]
"""The rule it breaks, how, and the message."""


def run_seed(seed: int, n: int) -> Counter[str]:
    """Messages of each kind, as they should be and with one thing wrong; what was shown. Raises InvariantBroken."""
    random = Random(f"doors {seed} {n}")
    voices = Voices(random, n)
    shown: Counter[str] = Counter()
    for draw in (_vote, _proposal, _view_change, _new_view) * (MESSAGES // 4):
        message = draw(voices)
        kind = type(message).__name__
        refusal = _refusal(voices, voices.said(message))
        require(not refusal, _RULES[type(message)], f"a good {kind} is refused: {refusal}")
        shown[f"{kind} taken"] += 1
        rule, how, spoilt = random.choice(list(_spoilt(voices, message)))
        require(bool(_refusal(voices, spoilt)), rule, f"{kind} passes the door, {how}")
        shown[f"{kind} refused: {how}"] += 1
    _one_digest_in_every_view(voices)
    return shown


_RULES: dict[type[Message], str] = {
    Prepare: "P5",
    Commit: "P5",
    PrePrepare: "P2",
    ViewChange: "P11",
    NewView: "P12",
}


def _refusal(voices: Voices, signed: Signed) -> str:
    founding = voices.founding
    try:
        verify_message(signed, founding.chain, EPOCH, founding.validators, voices.signatures.verify)
    except InvalidInput as refusal:
        return str(refusal)
    return ""


def _one_digest_in_every_view(voices: Voices) -> None:
    """P5: a block prepared again is the same block."""
    header = voices.random.choice(voices.branch(0))
    shown = [PrePrepare(EPOCH, View(view), header, voices.ids[voices.primary(view)]) for view in (0, 3)]
    require(all(one.block_hash == header.hash for one in shown), "P5", "a block's digest depends on the view")


# As it should be


def _vote(voices: Voices) -> Message:
    random = voices.random
    header = random.choice(voices.branch(random.randrange(3)))
    kind = random.choice([Prepare, Commit])
    return kind(EPOCH, View(random.randrange(6)), header.height, header.hash, random.choice(voices.ids))


def _proposal(voices: Voices) -> Message:
    view = voices.random.randrange(9)
    header = voices.random.choice(voices.branch(view))
    return PrePrepare(EPOCH, View(view), header, voices.ids[voices.primary(view)])


def _lock(voices: Voices, below: int) -> Certificate | None:
    """A certificate of an earlier view, or none; in each view there is one chain."""
    random = voices.random
    if random.random() < 0.3:
        return None
    view = random.randrange(below)
    return voices.certificate(random.choice(["prepare", "commit"]), view, random.choice(voices.branch(view)))


def _committed(voices: Voices) -> Certificate | None:
    random = voices.random
    view = random.randrange(5)
    return voices.certificate("commit", view, random.choice(voices.branch(view))) if random.random() < 0.5 else None


def _view_change(voices: Voices) -> Message:
    view = voices.random.randint(1, 5)
    return voices.view_change(voices.random.randrange(voices.n), view, _lock(voices, view), _committed(voices))


def _new_view(voices: Voices) -> Message:
    view = voices.random.randint(1, 5)
    changes = [voices.view_change(seat, view, _lock(voices, view)) for seat in voices.seats(voices.q)]
    bare = voices.new_view(changes)
    if bare.certificate is None or voices.random.random() < 0.3:
        return bare
    chain = voices.branch(bare.certificate.view)[: bare.certificate.height]
    return replace(bare, headers=tuple(chain[voices.random.randrange(len(chain)) :]))


# With one thing wrong


def _spoilt(voices: Voices, message: Message) -> Iterator[Spoilt]:
    signed = voices.said(message)
    seat = voices.ids.index(message.author)
    stranger = ValidatorId(voices.random.randbytes(32))
    yield "P5", "signed by nobody", replace(signed, signature=noise(voices.random))
    yield "P5", "signed by another", voices.sign((seat + 1) % voices.n, message)
    yield "P5", "of another epoch", voices.said(replace(message, epoch=Epoch(1)))
    yield "P5", "of a stranger", Signed(replace(message, author=stranger), signed.signature)
    if not isinstance(message, PrePrepare | NewView):
        yield "P5", "signed for another view", replace(signed, message=replace(message, view=View(message.view + 1)))
    match message:
        case Prepare():
            yield "P5", "signed as a PREPARE", replace(signed, message=Commit(*_fields(message)))
        case Commit():
            yield "P5", "signed as a COMMIT", replace(signed, message=Prepare(*_fields(message)))
        case PrePrepare():
            yield from _spoilt_proposals(voices, message)
        case ViewChange():
            yield from _spoilt_view_changes(voices, message)
        case NewView():
            yield from _spoilt_new_views(voices, message)


def _fields(ballot: Prepare | Commit) -> tuple[Epoch, View, Height, BlockHash, ValidatorId]:
    return ballot.epoch, ballot.view, ballot.height, ballot.block_hash, ballot.author


def _spoilt_proposals(voices: Voices, message: PrePrepare) -> Iterator[Spoilt]:
    other = voices.ids[(voices.primary(message.view) + 1) % voices.n]
    yield "P2", "of somebody who is not the primary", voices.said(replace(message, author=other))
    for change in ({"chain": ChainId(bytes(32))}, {"epoch": Epoch(1)}, {"height": Height(0)}):
        spoilt = replace(message, header=replace(message.header, **change))
        yield "P2", f"its header with another {next(iter(change))}", voices.said(spoilt)


def _spoilt_certificates(voices: Voices, good: Certificate) -> Iterator[tuple[str, Certificate]]:
    votes = good.votes
    at = voices.random.randrange(len(votes))
    yield "one vote short", replace(good, votes=votes[:at] + votes[at + 1 :])
    yield "with one vote twice", replace(good, votes=(*votes[:-1], votes[-2]) if at else (votes[0], *votes[:-1]))
    yield "one voice in every seat", replace(good, votes=(votes[at],) * len(votes))
    yield "out of order", replace(good, votes=tuple(reversed(votes)))
    yield "of nobody's seat", replace(good, votes=(*votes[:-1], Vote(voices.n, votes[-1].signature)))
    forged = replace(votes[at], signature=noise(voices.random))
    yield "with a forged vote", replace(good, votes=(*votes[:at], forged, *votes[at + 1 :]))
    yield "of the other kind", replace(good, kind="commit" if good.kind == "prepare" else "prepare")
    yield "of another epoch", replace(good, epoch=Epoch(1))


def _spoilt_view_changes(voices: Voices, message: ViewChange) -> Iterator[Spoilt]:
    say = voices.said
    lock = message.lock
    if lock is None:
        claim = Claim(View(0), Height(1), voices.branch(0)[0].hash)
        yield "P11", "its claim without a certificate", say(replace(message, claim=claim))
    else:
        yield "P11", "its certificate without a claim", say(replace(message, claim=None))
        yield "P11", "its claim without the certificate", say(replace(message, lock=None))
        for change in _other_claims(voices, lock):
            yield "P11", "its claim not that of its certificate", say(replace(message, claim=change))
        for how, spoilt in _spoilt_certificates(voices, lock):
            changed = replace(message, lock=spoilt, claim=claim_of(spoilt))
            yield "P5", f"its certificate {how}", say(changed)
    header = voices.branch(message.view)[0]
    for view in (message.view, message.view + 1):
        late = voices.certificate("prepare", view, header)
        yield "P11", "its claim not of an earlier view", say(replace(message, lock=late, claim=claim_of(late)))
    prepared = voices.certificate("prepare", 0, voices.branch(0)[0])
    yield "P11", "its commit certificate of PREPAREs", say(replace(message, committed=prepared))


def _other_claims(voices: Voices, lock: Certificate) -> Iterator[Claim]:
    claim = Claim(lock.view, lock.height, lock.block_hash)
    yield replace(claim, height=Height(claim.height + 1))
    yield replace(claim, block_hash=voices.branch(7)[0].hash)
    if claim.view:
        yield replace(claim, view=View(claim.view - 1))


def _spoilt_new_views(voices: Voices, message: NewView) -> Iterator[Spoilt]:
    say, claims = voices.said, message.claims
    other = voices.ids[(voices.primary(message.view) + 1) % voices.n]
    yield "P2", "of somebody who is not the primary", say(replace(message, author=other))
    low = min(claims, key=lambda quoted: _rank(quoted.claim))  # leaving it out leaves the tip as it is
    fewer = tuple(quoted for quoted in claims if quoted is not low)
    yield "P11", "with a claim too few", say(replace(message, claims=fewer))
    one = voices.random.choice(fewer)
    twice = tuple(sorted((*fewer, one), key=lambda quoted: quoted.author))
    yield "P11", "with one claim twice", say(replace(message, claims=twice))
    forged = tuple(replace(quoted, signature=noise(voices.random)) if quoted is low else quoted for quoted in claims)
    yield "P11", "quoting what nobody signed", say(replace(message, claims=forged))
    late = voices.certificate("prepare", message.view, voices.branch(message.view)[0])
    seat = voices.ids.index(low.author)
    quote = voices.quote(voices.view_change(seat, message.view, late))
    changed = tuple(quote if quoted is low else quoted for quoted in claims)
    yield "P11", "quoting a claim of its own view", say(replace(message, claims=changed, certificate=late, headers=()))
    yield from _spoilt_tips(voices, message)


def _rank(claim: Claim | None) -> tuple[int, int]:
    return (-1, -1) if claim is None else (claim.view, claim.height)


def _spoilt_tips(voices: Voices, message: NewView) -> Iterator[Spoilt]:
    say: Callable[[Message], Signed] = voices.said
    tip = message.certificate
    wrong = voices.branch(7)
    if tip is None:
        yield "P12", "with headers to no tip", say(replace(message, headers=(wrong[0],)))
        yield "P12", "with a certificate of no claim", say(replace(message, certificate=_any(voices)))
        return
    yield "P12", "without the certificate of its tip", say(replace(message, certificate=None))
    yield (
        "P12",
        "with another certificate",
        say(replace(message, certificate=voices.certificate("prepare", 9, wrong[0]))),
    )
    yield "P12", "with headers to another block", say(replace(message, headers=(wrong[tip.height - 1],)))
    if tip.height > 1:
        gap = (wrong[tip.height - 2], voices.branch(tip.view)[tip.height - 1])
        yield "P12", "with headers that do not follow each other", say(replace(message, headers=gap))
    for how, spoilt in _spoilt_certificates(voices, tip):
        yield "P5", f"its certificate {how}", say(replace(message, certificate=spoilt))
    lower = [quoted.claim for quoted in message.claims if quoted.claim and _rank(quoted.claim) < (tip.view, tip.height)]
    for claim in lower:
        header = voices.branch(claim.view)[claim.height - 1]
        low = voices.certificate("prepare", claim.view, header)
        yield "P12", "with a lower claim's certificate", say(replace(message, certificate=low, headers=()))


def _any(voices: Voices) -> Certificate:
    return voices.certificate("prepare", 0, voices.branch(0)[0])
