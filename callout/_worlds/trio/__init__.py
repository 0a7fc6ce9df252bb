"""Real loops and real threads."""
