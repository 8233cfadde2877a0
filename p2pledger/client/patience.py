"""How long a client waits for what."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client waits, in seconds."""

    silence_s: float = 10.0
    """For one node to answer a question or to prove a receipt, before others are asked."""
    busy_first_s: float = 0.05
    """Before the first retry at a node that is full; it doubles each time."""
    busy_most_s: float = 2.0
    total_s: float = 60.0
    """For a transaction as a whole."""
    expiry_s: float = 600.0
    """The chain will not execute a transaction later than this."""
