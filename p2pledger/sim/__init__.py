"""Whole clusters in one seed: real engines over memory stores, an unkind network, crashes and liars."""
