"""What every server of ours is started with. Imports nothing of ours."""
