"""Where record data lives: a small seam over object stores, and one module per store."""
