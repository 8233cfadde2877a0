"""The agreement alone: real replicas in a seeded heap of events, several times as fast as whole nodes."""

from p2pledger.sim.core.campaign import Result, draw, recovery_bound_ms, run_seed
from p2pledger.sim.core.world import Core, Faults

__all__ = ["Core", "Faults", "Result", "draw", "recovery_bound_ms", "run_seed"]
