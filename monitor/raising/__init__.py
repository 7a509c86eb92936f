"""Findings, evidence and trouble become `Alert` values here and nowhere else."""
