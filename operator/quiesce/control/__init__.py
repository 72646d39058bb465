"""The loop: a keyed queue, and for each key observe, decide, act, tell. It remembers nothing that can't be lost."""
