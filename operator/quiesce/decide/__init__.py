"""What to do next: pure functions of an observation, which carries the time. Every decision says why."""
