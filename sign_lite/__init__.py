"""The signing CLI: sign and verify files with standard Sigstore bundles."""
