"""Figures of a released record against their bounds; the figures are made up here."""

from dataclasses import replace

import pytest

from bench.micro.release import Figures, judged, report
from bench.micro.ward import Allergies, Opened, Released

ROW = {"capsule, bytes": 187.0, "check and release (validator)": 700.0, "open (reader)": 400.0}
GOOD = Figures(
    four=ROW,
    sixteen=ROW | {"open (reader)": 1_500.0},
    sealing=250.0,
    released=Released(whole_s=0.001, shares_s=0.0008),
    opened=Opened(wall_s=0.7, reader_s=0.2, validators_s=0.7),
    allergies=Allergies(finality_s=0.2, opening_s=0.05),
)


def missed(figures: Figures) -> list[int]:
    """Places of the bounds that are not kept."""
    return [place for place, (bound, value) in enumerate(judged(figures)) if not bound.is_met(value, bound.bound)]


def test_good_figures_meet_all_nine_bounds() -> None:
    lines = report(GOOD)
    assert missed(GOOD) == []
    assert sum(line.endswith("| met |") for line in lines) == 9
    assert "| chart of 182 records, wall time | 0.70 s | ≤ 1 s | met |" in lines


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"four": ROW | {"capsule, bytes": 201.0}}, 0),
        ({"sealing": 49.0}, 1),
        ({"four": ROW | {"check and release (validator)": 1_201.0}}, 2),
        ({"released": Released(0.00121, 0.001)}, 3),
        ({"four": ROW | {"open (reader)": 3_001.0}}, 4),
        ({"sixteen": ROW | {"open (reader)": 10_001.0}}, 5),
        ({"opened": Opened(0.7, 0.9, 1.2)}, 6),
        ({"opened": Opened(1.1, 0.2, 0.7)}, 7),
        ({"allergies": Allergies(0.05, 0.06)}, 8),
    ],
)
def test_each_bound_is_missed_by_its_own_figure(change: dict[str, object], place: int) -> None:
    figures = replace(GOOD, **change)  # type: ignore[arg-type]
    assert missed(figures) == [place]
    assert sum(line.endswith("| missed |") for line in report(figures)) == 1
