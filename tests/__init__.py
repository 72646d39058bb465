"""Everything that checks Quiesce: unit, API and end-to-end tests, and the cluster they run on."""
