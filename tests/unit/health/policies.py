"""Random policies and requests as plain dicts, and the same ones as the package's records."""

import random
from typing import Any

from p2pledger.health.consent import Consent
from p2pledger.health.evaluator import Decision, Reader, Setting, decide
from p2pledger.health.operations import (
    AccessRequest,
    ActorOpening,
    ConsentGrant,
    PolicyException,
    actor_commit,
    role_handle,
)
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code
from tests.reference import consent as reference

Plain = dict[str, Any]
GRANTED = ["TREAT", "TREAT", "COC", "ETREAT", "CLINTRL", "HPAYMT", "COVERAGE", "HRESCH", "PATRQT"]
ASKED = [
    "HDECD",
    "TREAT",
    "TREAT",
    "TREAT",
    "TREAT",
    "COC",
    "POPHLTH",
    "ETREAT",
    "ERTREAT",
    "BTG",
    "CLINTRL",
    "ELIGVER",
    "CLINTRCH",
    "HMARKT",
]
ACTORS = [
    ("person", "p1", 1),
    ("person", "p2", 1),
    ("organisation", "o1", 1),
    ("organisation", "o1", 2),
    ("role", "nurse", 1),
    ("role", "clerk", 1),
    ("group", "g1", 1),
]
POLICIES = ["deny", "basic-normal", "all-normal", "break-glass-only"]
LABELS = ["R", "PSY", "SDV"]
NOW = 1_000


def _some(rng: random.Random, values: list[Any], most: int) -> list[Any]:
    return rng.sample(values, rng.randint(0, min(most, len(values))))


def _maybe(rng: random.Random, chance: float, values: list[Any], most: int) -> list[Any]:
    return _some(rng, values, most) if rng.random() < chance else []


def _months(rng: random.Random) -> tuple[int, int] | None:
    return None if rng.random() < 0.6 else (first := rng.randint(1, 3), rng.randint(first, 3))


def _scope(rng: random.Random) -> Plain:
    return {
        "compartments": None if rng.random() < 0.6 else _some(rng, [0, 1, 2], 3),
        "classes": None if rng.random() < 0.8 else _some(rng, ["c1", "c2"], 2),
        "months": _months(rng),
        "records": _maybe(rng, 0.15, ["r1", "r2"], 2),
        "authors": _maybe(rng, 0.15, ["a1", "a2"], 2),
        "encounters": _maybe(rng, 0.15, ["e1"], 1),
    }


def _exception(rng: random.Random) -> Plain:
    return _scope(rng) | {
        "actors": _maybe(rng, 0.3, ACTORS, 2),
        "purposes": _maybe(rng, 0.4, sorted(set(GRANTED)), 2),
        "labels": None if rng.random() < 0.5 else _some(rng, LABELS, 2),
    }


def random_consent(rng: random.Random, number: int) -> Plain:
    """A consent that has a fair chance to permit something."""
    first = NOW + rng.choice([-500, -100, -100, -100, -100, -1, 0, 1])
    btg = rng.choice(["policy", "policy", "policy", "named", "never"])
    return _scope(rng) | {
        "id": number,
        "pid": "me" if rng.random() < 0.9 else "other",
        "revoked": rng.random() < 0.1,
        "first": first,
        "last": max(first + 1, NOW + rng.choice([0, 1, 100, 100, 100, 100, 500])),
        "base": "permit" if rng.random() < 0.65 else "deny",
        "actors": _maybe(rng, 0.6, ACTORS, 3),
        "purposes": sorted({rng.choice(GRANTED), rng.choice(GRANTED), rng.choice(["TREAT", "HPAYMT"])}),
        "labels": None if rng.random() < 0.7 else _some(rng, LABELS, 2),
        "exceptions": [_exception(rng) for _ in range(rng.choice([0, 0, 1, 2]))],
        "btg": btg,
        "btg_actors": [rng.choice(ACTORS)] if btg == "named" or rng.random() < 0.3 else [],
        "max_uses": rng.choice([0, 0, 0, 2]),
        "uses": rng.randint(0, 3),
    }


def random_request(rng: random.Random) -> Plain:
    return {
        "pid": "me",
        "basis": rng.randint(0, 3) if rng.random() < 0.4 else None,
        "purpose": rng.choice(ASKED),
        "actor": rng.choice(ACTORS) if rng.random() < 0.8 else None,
        "compartments": _some(rng, [0, 1, 2], 2) or [rng.randint(0, 2)],
        "classes": _maybe(rng, 0.6, ["c1", "c2"], 2),
        "labels": _maybe(rng, 0.5, LABELS, 2),
        "months": (first := rng.randint(1, 3), rng.randint(first, 3)) if rng.random() < 0.7 else None,
        "records": _maybe(rng, 0.5, ["r1", "r2"], 2),
        "authors": _maybe(rng, 0.5, ["a1", "a2"], 2),
        "encounters": _maybe(rng, 0.5, ["e1"], 1),
        "n_records": rng.choice([1, 7, 256, 257]),
        "reason": rng.choice(["written", "written", "written", "blank", None]),
    }


def random_reader(rng: random.Random) -> Plain:
    roles = [role for role in ("nurse", "clerk") if rng.random() < 0.6]
    groups = ["g1"] if rng.random() < 0.5 else []
    truths = [("person", "p1"), ("organisation", "o1"), *(("role", role) for role in roles)]
    return {
        "truths": {*truths, *(("group", group) for group in groups)},
        "roles": roles,
        "groups": groups,
        "is_clinical": "nurse" in roles,
        "may_break_glass": rng.random() < 0.7,
        "has_second_factor": rng.random() < 0.7,
    }


def setting(policy: str, now: int = NOW, is_deceased: bool = False) -> Plain:
    return {"policy": policy, "now": now, "is_deceased": is_deceased}


def random_setting(rng: random.Random) -> Plain:
    return setting(rng.choice(POLICIES), NOW, rng.random() < 0.15)


def random_case(rng: random.Random) -> tuple[Plain, Plain, list[Plain], Plain]:
    """(request, reader, consents, setting), in which the dead are asked about as the dead are."""
    request, reader, where = random_request(rng), random_reader(rng), random_setting(rng)
    if where["is_deceased"] and rng.random() < 0.5:
        request |= {"purpose": "HDECD", "basis": None}
    consents = [random_consent(rng, number) for number in range(rng.choice([0, 1, 1, 2, 3, 4]))]
    return request, reader, consents, where


# The same as records


_NAMES = [*range(64), "p1", "p2", "o1", "g1", "me", "other", "c1", "c2", "r1", "r2", "a1", "a2", "e1", *LABELS]
_HANDLES = {name: sha256(str(name).encode())[:16] for name in _NAMES}


def _opening(actor: tuple[str, str, int]) -> ActorOpening:
    kind, name, salt = actor
    handle = role_handle(name) if kind == "role" else _HANDLES[name]  # type: ignore[arg-type]
    return ActorOpening(bytes([salt]) * 32, kind, handle)  # type: ignore[arg-type]


_COMMITS = {actor: actor_commit(_opening(actor)) for actor in ACTORS}


def _handles(names: list[Any] | None) -> tuple[bytes, ...] | None:
    return None if names is None else tuple(_HANDLES[name] for name in names)


def _commits(actors: list[Any]) -> tuple[bytes, ...]:
    return tuple(_COMMITS[actor] for actor in actors)


def _calendar(months: tuple[int, int] | None) -> tuple[int, int] | None:
    return None if months is None else (202600 + months[0], 202600 + months[1])


def _scope_fields(plain: Plain) -> dict[str, Any]:
    places = ("compartments", "classes", "labels", "records", "authors", "encounters")
    return {place: _handles(plain[place]) for place in places} | {"months": _calendar(plain["months"])}


def exception_record(plain: Plain) -> PolicyException:
    return PolicyException(
        actor_commits=_commits(plain["actors"]), purposes=tuple(plain["purposes"]), **_scope_fields(plain)
    )


def consent_record(plain: Plain) -> Consent:
    terms = ConsentGrant(
        consent_id=_HANDLES[plain["id"]],
        pid=_HANDLES[plain["pid"]],
        capacity="patient",
        base=plain["base"],
        actor_commits=_commits(plain["actors"]),
        purposes=tuple(plain["purposes"]),
        valid_from_ms=plain["first"],
        valid_to_ms=plain["last"],
        max_uses=plain["max_uses"],
        exceptions=tuple(exception_record(exception) for exception in plain["exceptions"]),
        btg=plain["btg"],
        doc_commit=b"d" * 32,
        evidence_commit=b"e" * 32,
        btg_commits=_commits(plain["btg_actors"]),
        **_scope_fields(plain),
    )
    return Consent(terms, 1, plain["uses"], 5 if plain["revoked"] else None)


def request_record(plain: Plain) -> AccessRequest:
    return AccessRequest(
        access_id=b"a" * 16,
        organisation=_HANDLES["o1"],
        pid=_HANDLES[plain["pid"]],
        basis=None if plain["basis"] is None else _HANDLES[plain["basis"]],
        purpose=plain["purpose"],
        actor_opening=None if plain["actor"] is None else _opening(plain["actor"]),
        scope_commit=b"s" * 32,
        n_records=plain["n_records"],
        reader_eph_x25519=b"x" * 32,
        pop=b"p" * 64,
        not_after_ms=2**40,
        reason_commit={"written": b"r" * 32, "blank": bytes(32), None: None}[plain["reason"]],
        **_scope_fields(plain),
    )


def reader_record(plain: Plain) -> Reader:
    return Reader(
        did=_HANDLES["p1"],
        organisation=_HANDLES["o1"],
        roles=tuple(plain["roles"]),
        groups=tuple(_HANDLES[group] for group in plain["groups"]),
        may_break_glass=plain["may_break_glass"],
        has_second_factor=plain["has_second_factor"],
    )


def decided(request: Plain, reader: Plain, consents: list[Plain], where: Plain) -> Decision:
    """What the package decides."""
    records = [consent_record(consent) for consent in consents]
    setting = Setting(where["policy"], where["now"], where["is_deceased"])
    return decide(request_record(request), reader_record(reader), records, setting)


def in_words(code: Code) -> str:
    """The code as the reference evaluator calls it."""
    return "ALLOWED" if code == Code.OK else code.name.removeprefix("E_")


assert reference.RECORDS_MAX == 256
