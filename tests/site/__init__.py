"""The subscribers' site, driven over HTTP and in a browser."""
