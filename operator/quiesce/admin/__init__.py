"""Talking to servers at their admin endpoints: one typed adapter for each kind of server."""
