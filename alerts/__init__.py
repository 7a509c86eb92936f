"""What an alert is, how it is rendered, and how it gets delivered. Knows nothing of logs, rules or databases."""
