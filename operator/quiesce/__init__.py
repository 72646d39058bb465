"""Quiesce: stops, drains and rolls application servers on Kubernetes without losing a request."""
