"""Start-up and connection limits of this project's servers. Imports nothing of ours."""
