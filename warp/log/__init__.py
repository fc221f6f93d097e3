"""Record data: how it is written as segments, and how it is read back."""
