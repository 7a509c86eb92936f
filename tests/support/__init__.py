"""Builders and misbehaving parts that tests share."""
