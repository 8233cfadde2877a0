"""Judges a run from outside, by raw bytes: what crossed the wire, what stores hold, what was answered.

It shares no code with the node: it reads, hashes, counts and verifies for itself, from what docs/wire.md,
docs/protocol.md and docs/state.md say. Only the standard library, msgpack and nacl are imported here.
"""

from p2pledger.sim.observer.judgement import InvariantBroken
from p2pledger.sim.observer.observer import Observer

__all__ = ["InvariantBroken", "Observer"]
