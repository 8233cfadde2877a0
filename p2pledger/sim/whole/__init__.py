"""Whole nodes: the real tasks of every node in one trio run, over virtual time, memory links and real LMDB."""

from p2pledger.sim.whole.nodes import Result, Trouble, draw, run_seed

__all__ = ["Result", "Trouble", "draw", "run_seed"]
