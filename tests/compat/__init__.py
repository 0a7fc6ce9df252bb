"""Tests of callout_linux."""
