"""Commands of `ca-lite`, grouped by what they need at run time: each file imports no more than its commands need."""
