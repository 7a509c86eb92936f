"""One adapter per log protocol: each turns its server's answers into a `monitor.model.log_source.LogSource`."""
