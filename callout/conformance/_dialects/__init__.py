"""The operations of the traces, done with the API of each kernel."""
