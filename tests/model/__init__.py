"""The agreement as TLA+ modules, runs of TLC on them, and their traces on real replicas (docs/model.md)."""
