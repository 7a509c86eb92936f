"""The Signwatch daemon and its commands: follow logs, prove what they showed, judge signings, get alerts delivered."""
