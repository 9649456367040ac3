"""Network -> ops: what must be done, before any hardware is known."""
