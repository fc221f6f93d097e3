"""The tables of all messages, one module per family of APIs."""
