"""A Fulcio-compatible certificate authority with its own OIDC issuer and timestamp authority."""
