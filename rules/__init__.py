"""Identity rules: which signings concern whom, and which of those were expected. Pure: no database, HTTP or clock."""
