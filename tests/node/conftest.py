"""Real clusters of processes: each test gets its own, and none of its processes outlives it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from p2pledger.demo.cluster import Cluster

BRISK = {"timeout_ms": 500}
"""A dead primary is noticed twice as fast as by default; the machine that tests may be slow."""


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes a cluster of `members`, with what `Cluster.create` takes; what its nodes said is shown with a failure."""
    with ExitStack() as stack:
        made: list[Cluster] = []

        def make(members: int = 4, **options: object) -> Cluster:
            parameters = {**BRISK, **options.pop("params", {})}  # type: ignore[dict-item]
            cluster = Cluster.create(tmp_path / f"cluster-{len(made)}", members, params=parameters, **options)  # type: ignore[arg-type]
            made.append(cluster)
            return stack.enter_context(cluster)

        yield make
        for cluster in made:
            print(cluster.last_words())  # pytest shows it where the test has failed
