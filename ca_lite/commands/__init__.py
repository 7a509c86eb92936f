"""Commands of `ca-lite`, grouped by what they need at run time: each imports only that."""
