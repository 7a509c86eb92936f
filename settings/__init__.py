"""Settings files: YAML with places, read strictly into frozen pydantic models. Imports nothing of ours."""
