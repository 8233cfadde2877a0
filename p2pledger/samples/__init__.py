"""Sample records of synthetic patients, shipped with the package for the demo, the tests and first steps.

Nobody in them exists; README.md in this folder says where they come from and under which licence.
"""
