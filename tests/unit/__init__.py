"""Decisions as tables and as properties, the world's memory, the queue, and WildFly's odd answers; no cluster."""
