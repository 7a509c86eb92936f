"""The subscribers' site: look up, subscribe, be told. Knows the store and the rule language, never the follower."""
