"""Validators that hold shares of keys, readers that ask for them, and those of both who lie.

`Ward` is the workload: put it into `p2pledger.sim.run_plan`, or `campaign.run_seed` to have it demand that readers open
what they may once the world has healed. `observer/releases.py` judges.
"""
