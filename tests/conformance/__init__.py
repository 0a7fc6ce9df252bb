"""Tests of what callout(9) promises."""
