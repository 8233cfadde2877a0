"""Random inputs by seed for single parts, each judged by a model that is written here anew.

Whole clusters seldom show what one door refuses or one count leaves out, because the next guard repeats it. Here a
seed draws inputs for the part itself. Every module has `run_seed(seed, nodes)`, which raises InvariantBroken naming the
rule of docs/protocol.md that does not hold, so that a budget of seeds can be stated for it as for a simulator.
"""
