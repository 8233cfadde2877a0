"""Seeded defects: each `.patch` removes one rule of docs/protocol.md, and the suite must notice (docs/mutants.md)."""
