"""Settings files: YAML with places, read strictly into frozen values. Imports nothing of ours."""
