"""Rules in force applied to candidate entries: verdicts now, second judgements later, and coverage of the rules."""
