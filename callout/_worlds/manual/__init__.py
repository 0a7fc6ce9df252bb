"""One CPU without a loop: its clock is moved by hand, and what is due runs in the caller."""
