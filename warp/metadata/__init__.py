"""Facts about record data: topics, logs, segments, extents, producers; one store over two databases."""
