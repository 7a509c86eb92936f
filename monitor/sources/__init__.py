"""One adapter per log protocol: each turns its server's answers into what `monitor.source.LogSource` promises."""
