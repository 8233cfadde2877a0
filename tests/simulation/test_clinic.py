"""F-01 to F-06, I-8, I-9: the health contracts in worlds that crash, lie and partition; and a check that bites."""

import pytest

from p2pledger.health.consent import Consent
from p2pledger.primitives.errors import Code
from p2pledger.sim import InvariantBroken, draw, run_plan
from p2pledger.sim.clinic import Clinic


@pytest.mark.parametrize("first", range(0, 40, 5))
def test_consents_and_logs_hold_in_unkind_worlds(first: int) -> None:
    for seed in range(first, first + 5):
        run_plan(draw(seed, 4, "nasty", 12), Clinic())


def test_the_clinic_reaches_every_kind_of_answer() -> None:
    """The workload is worth its time: people are allowed and denied for the reasons that consents give."""
    clinic = Clinic()
    seen: set[int] = set()
    judge = clinic._judge

    def listen(line, state) -> None:  # type: ignore[no-untyped-def]
        seen.add(line.decision)
        judge(line, state)

    clinic._judge = listen  # type: ignore[method-assign]
    run_plan(draw(1, 4, "calm", 60), clinic)
    wanted = {Code.OK, Code.E_PURPOSE, Code.E_SCOPE, Code.E_REVOKED, Code.E_EXPIRED, Code.E_USES}
    assert {int(code) for code in wanted} <= seen


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("F-03", "time"),
        ("F-06", "revoked"),
    ],
)
def test_a_contract_that_forgets_a_rule_is_caught(rule: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariant is not the evaluator: with the rule taken out of the contract, the clinic notices."""

    def forgets(consent: Consent, time_ms: int) -> bool:
        terms = consent.terms
        if broken == "time":
            return consent.revoked is None
        return terms.valid_from_ms <= time_ms < terms.valid_to_ms

    monkeypatch.setattr(Consent, "is_in_force", forgets)
    with pytest.raises(InvariantBroken, match=rule):
        for seed in range(20):
            run_plan(draw(seed, 4, "calm", 30), Clinic())
