"""Deterministic virtual CPUs: every schedule can be chosen."""
