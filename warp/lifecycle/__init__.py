"""The life of data after its commit: merging, retention, compaction by key, deletion, and checks of all of it."""
