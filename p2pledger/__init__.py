"""A Byzantine-fault-tolerant ledger for healthcare consortia."""

__version__ = "0.1.0"
