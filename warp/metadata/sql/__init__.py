"""The named statements, by noun, in text that SQLite and PostgreSQL both understand."""
