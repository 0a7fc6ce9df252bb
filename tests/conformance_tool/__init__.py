"""The command ``callout conformance``, and what it gives to authors of other implementations."""
