"""Command-line programs: commands that are imported on use, exit codes, log formats. Imports nothing of ours."""
