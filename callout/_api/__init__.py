"""The public names, by man page: callout(9), mutex(9) and its relatives, and what other timer APIs need."""
