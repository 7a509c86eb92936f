"""Alerts: the value, its rendering, and its delivery. Independent of logs, rules and databases."""
