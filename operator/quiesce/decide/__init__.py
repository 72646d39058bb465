"""What to do next: pure functions of an observation, which includes the time. Every decision says why."""
