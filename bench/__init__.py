"""Measurements of real clusters on one machine; see bench/README.md for what the numbers mean."""
