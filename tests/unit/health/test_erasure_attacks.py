"""Erasure by whom it does not concern, or of something else: each works without the one rule that refuses it."""

import pytest
from msgspec.structs import replace

from p2pledger.health import erasure, release
from p2pledger.health.erasure_operations import ErasedPart, HolderRegister
from p2pledger.primitives.errors import Code
from tests.attack import Without
from tests.unit.execution.ledger import id16
from tests.unit.health.charts import Chart
from tests.unit.health.test_erasure import BATCH, TWO, accepted, asked, certificate, refused, with_records
from tests.unit.health.world import BERG, DOCTOR, PATIENT, SEE, TAL, World, batch


@pytest.mark.attack("T90")
def test_nobody_erases_as_a_proxy_that_it_is_not(without: Without) -> None:
    def attack() -> Code:
        return with_records(World()).submit(DOCTOR, asked(TWO, asker="proxy"))

    with without(erasure._require_asker, "raise Refused(Code.E_CAPACITY)"):
        assert attack() == Code.OK
    assert attack() == Code.E_CAPACITY


@pytest.mark.attack("T90")
def test_another_house_decides_nothing(without: Without) -> None:
    def attack() -> Code:
        world = with_records(World())
        world.events(PATIENT, asked(TWO))
        return world.submit(TAL, accepted(TWO))

    with without(erasure.decide, "raise Refused(Code.E_ROLE)"):
        assert attack() == Code.OK
    assert attack() == Code.E_ROLE


@pytest.mark.attack("T90")
def test_no_records_of_another_patient_are_erased(without: Without) -> None:
    """Two requests of patients of one custodian, and a decision that exchanges them, in part."""

    def attack() -> Code:
        world = with_records(World())
        world.register("neighbour", "patient", BERG, "Berg")
        foreign = batch(batch_id=id16("foreign"), pid=id16("neighbour"))
        assert world.submit(BERG, foreign) == Code.OK
        world.events(PATIENT, asked(TWO))
        parts = (ErasedPart(id16("foreign"), (2,)),)
        return world.submit(BERG, replace(accepted(*parts), verdict="partial", basis="legal-hold", salt=None))

    with without(erasure._checked_size, "if batch is None or (batch.terms.pid, batch.terms.custodian)"):
        assert attack() == Code.OK
    assert attack() == Code.E_SCOPE


@pytest.mark.attack("T91")
def test_an_acceptance_is_of_what_was_asked(without: Without) -> None:
    def attack() -> Code:
        world = with_records(World())
        world.events(PATIENT, asked(TWO))
        return world.submit(BERG, accepted(ErasedPart(BATCH, (2, 4))))

    with without(erasure._checked_scope, "if operation.salt is not None and scope_commit("):
        assert attack() == Code.OK
    assert attack() == Code.E_SCOPE


@pytest.mark.attack("T91")
def test_nothing_is_refused_without_a_basis(without: Without) -> None:
    def attack() -> Code:
        world = with_records(World())
        world.events(PATIENT, asked(TWO))
        return world.submit(BERG, refused(basis=None))

    with without(erasure.decide, "raise Refused(Code.E_BASIS)"):
        assert attack() == Code.OK
    assert attack() == Code.E_BASIS


@pytest.mark.attack("T91")
def test_a_custodian_drops_no_holder(without: Without) -> None:
    def attack() -> Code:
        world = with_records(World())
        world.events(BERG, HolderRegister(id16("Berg"), id16("See"), True))
        return world.submit(BERG, HolderRegister(id16("Berg"), id16("See"), False))

    with without(erasure.register_holder, "raise Refused(Code.E_ROLE)"):
        assert attack() == Code.OK
    assert attack() == Code.E_ROLE


@pytest.mark.attack("T91")
def test_nobody_certifies_twice_or_for_another(without: Without) -> None:
    def attack() -> Code:
        world = with_records(World())
        world.events(PATIENT, asked(TWO))
        world.events(BERG, accepted(TWO))
        return world.submit(SEE, certificate())

    with without(erasure.certify, "raise Refused(Code.E_HOLDER)"):
        assert attack() in (Code.OK, Code.E_DUP)
    assert attack() == Code.E_HOLDER


@pytest.mark.attack("T92")
def test_no_share_under_an_access_from_before(without: Without) -> None:
    def attack() -> Code:
        chart = Chart()
        assert chart.world.grant() == Code.OK
        request = chart.allow(1)
        part = ErasedPart(chart.batch_id, (1,))
        chart.world.events(PATIENT, asked(part))
        chart.world.events(BERG, accepted(part))
        return chart.code(request)

    with without(release._entry, "if erasure.is_erased("):
        assert attack() == Code.OK
    assert attack() == Code.E_ERASED
