"""The long-running program: assembly, supervision of each log, the status page."""
