"""F-01 to F-06, I-8, I-9: the health contracts in worlds that crash, lie and partition; and checks that bite."""

from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.health import evaluator
from p2pledger.health.consent import Consent
from p2pledger.health.evaluator import judge
from p2pledger.primitives.errors import Code
from p2pledger.sim import InvariantBroken, draw, run_plan
from p2pledger.sim.clinic import Clinic


@pytest.mark.parametrize("first", range(0, 40, 5))
def test_consents_and_logs_hold_in_unkind_worlds(first: int) -> None:
    for seed in range(first, first + 5):
        run_plan(draw(seed, 4, "nasty", 12), Clinic())


def test_the_clinic_reaches_every_kind_of_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workload is worth its time: people are allowed, and denied for the reasons that consents give."""
    seen: set[Code] = set()

    def listens(*case: Any) -> Code:
        code = judge(*case)
        seen.add(code)
        return code

    monkeypatch.setattr(evaluator, "judge", listens)
    for seed in range(4):
        run_plan(draw(seed, 4, "calm", 40), Clinic())
    assert {Code.OK, Code.E_PURPOSE, Code.E_SCOPE, Code.E_REVOKED, Code.E_EXPIRED, Code.E_USES} <= seen


@pytest.mark.parametrize(
    ("rule", "forgotten"),
    [
        ("F-02", Code.E_SCOPE),
        ("F-03", Code.E_EXPIRED),
        ("F-05", Code.E_USES),
        ("F-06", Code.E_REVOKED),
        ("I-8", Code.E_PURPOSE),
    ],
)
def test_a_contract_that_forgets_a_rule_is_caught(rule: str, forgotten: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariant is not the evaluator: with one reason for a denial taken out of the contract, it notices."""

    def forgets(granted: Consent, *case: Any) -> Code:
        code = judge(granted, *case)
        if code != forgotten:
            return code
        return judge(replace(granted, revoked=None), *case) if code == Code.E_REVOKED else Code.OK

    monkeypatch.setattr(evaluator, "judge", forgets)
    with pytest.raises(InvariantBroken, match=rule):
        for seed in range(10):
            run_plan(draw(seed, 4, "calm", 40), Clinic())
