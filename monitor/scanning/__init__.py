"""Rules run over any range of any log, proven like following, on all cores; nothing is alerted unless asked for.

`run` reads one range, `missing` says which ranges a rule never saw, `backscan` reads them a little at a time beside a
running daemon.
"""
