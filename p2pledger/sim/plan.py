"""What a run will be, as plain data: drawn from a seed, saved as a scenario, made smaller when it fails."""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import msgspec

from p2pledger.chain.genesis import Parameters
from p2pledger.primitives import limits
from p2pledger.primitives.errors import InvalidInput
from p2pledger.sim.adversaries import BY_NAME
from p2pledger.sim.faults import AIMS, Faults
from p2pledger.sim.workload import Registers, Workload
from p2pledger.sim.world import World

AMNESIAC = "Amnesiac"
"""Among the faulty: an honest node that comes back with an empty disk whenever it crashes."""
PROFILES = ("calm", "lossy", "crashing", "byzantine", "swarm", "nasty")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that determines a run. Equal plans give equal traces."""

    seed: int
    nodes: int = 4
    heights: int = 20
    """To be reached after healing at the latest."""
    rounds: int = 400
    """Submissions during the faulty time, at most."""
    faults: Faults = field(default_factory=Faults)
    liars: Mapping[int, str] = field(default_factory=dict)
    """Node index to the name of an adversary, or `Amnesiac`; at most f of them."""
    parameters: Parameters = field(default_factory=lambda: Parameters(timeout_ms=300, timeout_cap_ms=2_400))
    cut: tuple[tuple[int, int], ...] = ()
    """Pairs of nodes without a link, ever; the rest is linked."""

    def world(self, log: list[str] | None = None, workload: Workload | None = None) -> World:
        """The world of this plan, at its beginning. Raises InvalidInput for an unknown adversary."""
        unknown = sorted(set(self.liars.values()) - set(BY_NAME) - {AMNESIAC})
        if unknown:
            known = ", ".join([*sorted(BY_NAME), AMNESIAC])
            raise InvalidInput(f"unknown adversary {unknown[0]}; known are {known}")
        if not 1 <= self.nodes <= limits.VALIDATORS_MAX:
            raise InvalidInput(f"{self.nodes} nodes; a consortium has 1 to {limits.VALIDATORS_MAX}")
        missing = {frozenset(pair) for pair in self.cut}
        pairs = {frozenset((a, b)) for a in range(self.nodes) for b in range(a)}
        return World(
            self.seed,
            self.nodes,
            self.faults,
            {index: BY_NAME[name]() for index, name in self.liars.items() if name != AMNESIAC},
            frozenset(index for index, name in self.liars.items() if name == AMNESIAC),
            self.parameters,
            workload or Registers(),
            frozenset(pairs - missing) if missing else None,
            log,
        )

    def to_json(self) -> str:
        """A scenario file: what differs from a plain plan, readable and stable."""
        return json.dumps(_plain(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan of a scenario file; raises InvalidInput naming what is wrong."""
        try:
            content = json.loads(text)
            unknown = sorted(set(content) - {item.name for item in fields(cls)})
            if unknown:
                raise InvalidInput(f"this is no scenario: unknown key {unknown[0]!r}")
            given = {**msgspec.structs.asdict(cls(0).parameters), **content.pop("parameters", {})}
            parameters = msgspec.convert([given[name] for name in Parameters.__struct_fields__], Parameters)
            return replace(msgspec.convert(content, cls, strict=False), parameters=parameters)
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidInput(f"this is no scenario: {error}") from error


def _plain(plan: Plan) -> dict[str, Any]:
    everything = asdict(plan) | {"parameters": msgspec.structs.asdict(plan.parameters)}
    standard = asdict(Plan(0))
    faults = {key: value for key, value in everything["faults"].items() if value != standard["faults"][key]}
    kept = {key: value for key, value in everything.items() if key in ("seed", "nodes") or value != standard[key]}
    return kept | {"faults": faults, "liars": {str(index): name for index, name in plan.liars.items()}}


def draw(seed: int, n: int, profile: str = "swarm", heights: int = 20, byzantine: int | None = None) -> Plan:
    """The plan of a seed for `n` nodes, with exactly `byzantine` liars if that is given, else up to f by chance.

    Raises InvalidInput for an unknown profile, or for more liars than f = (n - 1) // 3.

    Each kind of fault is on or off by chance, at some intensity (swarm testing: Groce et al., ISSTA 2012). `nasty` has
    more of them on, `calm` none; `lossy`, `crashing` and `byzantine` have one family each.
    """
    if profile not in PROFILES:
        raise InvalidInput(f"unknown profile {profile!r}; known are {', '.join(PROFILES)}")
    if byzantine is not None and not 0 <= byzantine <= (n - 1) // 3:
        raise InvalidInput(f"{byzantine} liars among {n} nodes; agreement bears at most {(n - 1) // 3}")
    chance = random.Random(f"draw {seed} {n} {profile}")
    likely = _Likely(chance, {"nasty": 1.6}.get(profile, 1.0))
    has_network = profile in ("lossy", "swarm", "nasty")
    has_crashes = profile in ("crashing", "swarm", "nasty")
    has_liars = profile in ("byzantine", "swarm", "nasty")
    faults = Faults(
        **(_network(likely) if has_network else {}),
        **(_crashes(likely) if has_crashes else {}),
        **(_clients(likely) if profile != "calm" else {}),
    )
    count = chance.randint(1, max(1, (n - 1) // 3)) if has_liars and n >= 4 and chance.random() < 0.7 else 0
    liars = _liars(chance, n, count if byzantine is None else byzantine)
    parameters = Parameters(
        window=chance.choice([1, 2, 4, 4, 8]),
        timeout_ms=300,
        timeout_cap_ms=2_400,
        checkpoint_interval=chance.choice([5, 10, 100]),
        term_heights=chance.choice([7, 20, 10_000]),
        heartbeat_ms=chance.choice([0, 1_000, 60_000]),
    )
    cut = _cut(chance, n, liars) if has_network and chance.random() < 0.15 else ()
    return Plan(seed, n, heights, 400, faults, liars, parameters, cut)


class _Likely:
    """Draws a fault: 0 if it is off, else an intensity up to `most`."""

    def __init__(self, chance: random.Random, eagerness: float) -> None:
        self.chance = chance
        self._eagerness = eagerness

    def __call__(self, share: float, most: float) -> float:
        is_on = self.chance.random() < share * self._eagerness
        intensity = self.chance.random() * most
        return intensity if is_on else 0.0


def _network(likely: _Likely) -> dict[str, Any]:
    return {
        "loss": likely(0.6, 0.2),
        "duplicate": likely(0.4, 0.2),
        "delay_ms": (1, likely.chance.choice([10, 50, 200])),
        "heavy_tail": likely(0.2, 0.1),
        "slow": likely(0.4, 0.05),
        "partition": likely(0.4, 0.3),
        "one_way": likely(0.5, 1.0),
        "isolate_at": likely.chance.choice(AIMS),
        "isolate": likely(0.3, 0.1),
    }


def _crashes(likely: _Likely) -> dict[str, Any]:
    return {
        "crash": likely(0.6, 0.004),
        "crash_at": likely.chance.choice(AIMS),
        "crash_aimed": likely(0.3, 0.03),
        "disk": likely(0.2, 0.005),
        "disk_full": likely(0.15, 0.003),
        "stall": likely(0.2, 0.02),
        "slow_nodes": int(likely(0.2, 3)),
        "skew_ms": likely.chance.choice([0, 50, 2_000]),
        "clock_jump": likely(0.15, 0.2),
    }


def _clients(likely: _Likely) -> dict[str, Any]:
    return {"retries": likely(0.4, 0.5), "flood": likely(0.15, 0.02)}


def _liars(chance: random.Random, n: int, count: int) -> dict[int, str]:
    names = [*sorted(BY_NAME), AMNESIAC, "Equivocator", "Deceiver"]
    return {index: chance.choice(names) for index in chance.sample(range(n), count)}


def _cut(chance: random.Random, n: int, liars: Mapping[int, str]) -> tuple[tuple[int, int], ...]:
    """Links that are missing, such that the honest can reach each other through the honest."""
    honest = [index for index in range(n) if index not in liars]
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    cut: list[tuple[int, int]] = []
    for pair in chance.sample(pairs, min(len(pairs), chance.randint(1, max(1, n // 2)))):
        if _is_connected(honest, set(pairs) - {*cut, pair}):
            cut.append(pair)
    return tuple(sorted(cut))


def _is_connected(nodes: list[int], pairs: set[tuple[int, int]]) -> bool:
    reached, edge = {nodes[0]}, [nodes[0]]
    while edge:
        here = edge.pop()
        for a, b in pairs:
            for there, origin in ((a, b), (b, a)):
                if origin == here and there in nodes and there not in reached:
                    reached.add(there)
                    edge.append(there)
    return len(reached) == len(nodes)
