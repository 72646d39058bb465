"""Talking to Kubernetes: one port, one adapter, and what the watches have told."""
