"""A real two-node Kubernetes cluster on this machine, its images and its load, for the end-to-end tests.

`python -m tests.cluster --help` says how to use it. Read `local.py` first: it is the order of the start.
"""
