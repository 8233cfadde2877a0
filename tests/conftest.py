"""What all tests share: the fixture that shows an attack without its check (tests/attack.py)."""

from collections.abc import Iterator

import pytest

from tests.attack import Without


@pytest.fixture
def without() -> Iterator[Without]:
    """Switch off one check; at the end of the test it must have mattered."""
    checks = Without()
    yield checks
    checks.finish()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An attack test shows its attack, and whoever switches a check off says which attack that shows."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        is_attack = item.get_closest_marker("attack") is not None
        if is_attack != ("without" in fixtures):
            raise pytest.UsageError(f"{item.nodeid}: an attack test has the mark `attack` and the fixture `without`")
