"""Many rules compiled into one index: `matcher.compile_rules` makes it, `matcher.Matcher` answers."""
