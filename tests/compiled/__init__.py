"""The compiled core against the pure one, and under stress."""
