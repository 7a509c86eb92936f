"""Identity rules: the selection of signings, and the verdict on each. Pure: no database, HTTP or clock."""
