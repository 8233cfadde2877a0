"""A town for the tests of one module: a consortium, a patient and a physician."""

import pytest

from tests.unit.cli.town import NAMES, Town, run, town_in


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """Four homes and a node to talk to."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("P2PLEDGER_HOME", "P2PLEDGER_GENESIS", "P2PLEDGER_NODES", "P2PLEDGER_WALLET", "P2PLEDGER_AT"):
            patch.delenv(name, raising=False)
        folder = tmp_path_factory.mktemp("town")
        patch.setenv("XDG_DATA_HOME", str(folder / "nobody"))
        with town_in(folder, patch) as made:
            yield made


@pytest.fixture(scope="module")
def patient(town: Town) -> str:
    """The pid of the owner of `patient.wallet` at the first hospital."""
    return town.enrol("patient.wallet", "patient")


@pytest.fixture(scope="module")
def doctor(town: Town) -> str:
    """The did of the owner of `doctor.wallet`, a physician of the second hospital."""
    did = town.enrol("doctor.wallet", "practitioner", NAMES[1])
    run("identity", "credential", *town.as_organisation(NAMES[1]), "--subject", did, "--role", "physician")
    return did
