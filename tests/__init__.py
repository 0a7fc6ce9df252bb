"""The tests; run them with nox (CONTRIBUTING.md)."""
