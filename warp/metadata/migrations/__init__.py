"""Schema migrations: one numbered .sql file per change and database, applied in order, each in one transaction.

Migrations only add, so that the previous release works on the new schema while a cluster is upgraded; what it still
needs is removed a release later.
"""
