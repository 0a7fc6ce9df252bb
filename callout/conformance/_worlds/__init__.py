"""The worlds in which the package's own implementations are replayed."""
