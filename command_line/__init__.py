"""Command lines: commands that load when they are used, and how a program ends. Imports nothing of ours."""
