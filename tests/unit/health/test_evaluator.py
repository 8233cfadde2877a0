"""The consent evaluator against a second one, and the invariants that hold whatever the policy."""

import copy
import os
import random
from collections import Counter
from pathlib import Path

from tests.reference import consent as reference
from tests.unit.health import policies
from tests.unit.health.policies import POLICIES, Plain, decided, in_words, setting

CASES = int(os.environ.get("CONSENT_CASES", "10000"))
"""`make consent-reference` asks for more."""
SEED = 20261121


def _cases(seed: int, cases: int = CASES) -> "list[tuple[Plain, Plain, list[Plain], Plain]]":
    rng = random.Random(seed)
    return [policies.random_case(rng) for _ in range(cases)]


def test_decide_agrees_with_the_reference() -> None:
    """I-6: on random policies and requests both evaluators give the same answer and the same reason."""
    seen: Counter[str] = Counter()
    for request, reader, consents, where in _cases(SEED):
        expected = reference.evaluate(request, reader, consents, where)
        actual = in_words(decided(request, reader, consents, where).code)
        assert actual == expected, (SEED, request, reader, consents, where)
        seen[expected] += 1
    assert set(seen) == {*reference.ORDER, "ALLOWED", "NO_CONSENT", "BTG_FORBIDDEN", "COSIGNERS", "DECEASED"}
    assert min(seen.values()) >= CASES // 1_000, f"a kind of answer is hardly reached: {seen}"


def test_the_reference_knows_nothing_of_the_package() -> None:
    """I-6 would be worth nothing if both used the same code."""
    source = Path(reference.__file__).read_text()
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert imports == ["from itertools import product"]


def test_the_order_of_consents_does_not_matter() -> None:
    """Decision and the consent it rests on are the same whatever order the state is read in."""
    for request, reader, consents, where in _cases(SEED + 1, 3_000):
        assert decided(request, reader, consents, where) == decided(request, reader, consents[::-1], where)


def test_adding_a_deny_never_enlarges_what_is_permitted() -> None:
    """I-7: neither a deny exception nor a denying consent turns a denial into a permission."""
    rng = random.Random(SEED + 2)
    tried = 0
    for request, reader, consents, where in _cases(SEED + 2, 8_000):
        if in_words(decided(request, reader, consents, where).code) == "ALLOWED":
            continue
        stricter = copy.deepcopy(consents)
        permits = [consent for consent in stricter if consent["base"] == "permit"]
        if permits and rng.random() < 0.7:
            rng.choice(permits)["exceptions"].append(policies.random_consent(rng, 9) | {"labels": None})
        else:
            stricter.append(policies.random_consent(rng, 9) | {"base": "deny", "exceptions": [], "btg": "never"})
        tried += 1
        assert decided(request, reader, stricter, where).code != 0, (request, reader, stricter, where)
    assert tried > 3_000


def test_shortening_a_period_never_enlarges_what_is_permitted() -> None:
    """I-7: a consent that ends earlier, begins later or is revoked permits no more than before.

    A consent that only takes away (deny exceptions that overrule other consents) is left as it is here: ending it
    ends what it takes away, which the patient asked for.
    """
    rng = random.Random(SEED + 3)
    tried = 0
    for request, reader, consents, where in _cases(SEED + 3, 8_000):
        granting = [consent for consent in consents if consent["base"] == "deny" or not consent["exceptions"]]
        granting = [consent for consent in granting if consent["btg"] == "policy"]
        if not granting or in_words(decided(request, reader, consents, where).code) == "ALLOWED":
            continue
        shorter = rng.choice(granting)
        kept = [consent for consent in consents if consent is not shorter]
        for change in ({"last": shorter["first"] + 1}, {"first": shorter["last"] - 1}, {"revoked": True}):
            assert decided(request, reader, [*kept, shorter | change], where).code != 0, (request, consents, change)
        tried += 1
    assert tried > 2_000


def test_shortening_a_named_consent_never_enlarges_what_it_permits() -> None:
    """I-7 for a consent judged alone, whatever its exceptions."""
    rng = random.Random(SEED + 4)
    for _ in range(4_000):
        consent, request = policies.random_consent(rng, 0), policies.random_request(rng) | {"basis": 0}
        reader = policies.random_reader(rng)
        if request["purpose"] == "BTG" or decided(request, reader, [consent], setting("deny")).code == 0:
            continue
        for change in ({"last": consent["first"] + 1}, {"first": consent["last"] - 1}, {"revoked": True}):
            assert decided(request, reader, [consent | change], setting("deny")).code != 0


def test_treatment_alone_yields_neither_broken_glass_nor_trials() -> None:
    """I-8: consents to TREAT never allow BTG or CLINTRL, nor emergency treatment, whatever else they say."""
    rng = random.Random(SEED + 5)
    allowed = 0
    for _ in range(4_000):
        consents = [policies.random_consent(rng, number) | {"purposes": ["TREAT"]} for number in range(2)]
        request, reader = policies.random_request(rng), policies.random_reader(rng) | {"may_break_glass": False}
        for purpose in ("BTG", "CLINTRL", "ETREAT", "ERTREAT"):
            assert decided(request | {"purpose": purpose}, reader, consents, setting("deny")).code != 0
        allowed += decided(request | {"purpose": "TREAT"}, reader, consents, setting("deny")).code == 0
    assert allowed > 300, "the same consents do allow treatment"


def test_no_consent_purpose_ever_breaks_the_glass() -> None:
    """A reader outside the break-glass groups never reads for BTG, even under a consent that lists it."""
    rng = random.Random(SEED + 6)
    for _ in range(500):
        consent = policies.random_consent(rng, 0) | {"purposes": ["BTG"], "actors": [], "exceptions": []}
        request = policies.random_request(rng) | {"purpose": "BTG", "basis": rng.choice([0, None])}
        reader = policies.random_reader(rng) | {"may_break_glass": False}
        assert in_words(decided(request, reader, [consent], setting(rng.choice(POLICIES))).code) == "BTG_FORBIDDEN"
