"""Executors of attention over a schedule, and the literal reference that they must equal."""
