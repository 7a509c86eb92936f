"""Alerts: the value, its rendering, and its delivery. Knows nothing of logs, rules or databases."""
