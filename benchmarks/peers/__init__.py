"""Chairlift beside what its users would take instead: the same model, machine and requests."""
