"""The subscribers' site: look-ups, subscriptions, notices. Imports store and rule language, never the follower."""
