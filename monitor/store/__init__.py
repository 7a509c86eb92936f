"""Durable state in one database, SQLite or PostgreSQL: positions, heads, findings, evidence, the outbox.

`monitor.store.database` opens it, `monitor.store.store.Store` implements the contracts that other rooms declare
(`monitor.model.state.State`, `alerts.outbox.Outbox`, `rules.facts.Facts`).
"""
