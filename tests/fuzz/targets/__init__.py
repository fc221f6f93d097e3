"""One module per target; tests/fuzz/table.py lists them."""
