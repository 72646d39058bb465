"""Talking to Kubernetes: one port, one adapter, and a cache of what the watches have reported."""
