"""The loop: a keyed queue; for each key, observe, decide, write the status, act. Its memory can be lost safely."""
