"""Code that the vault's tests share."""
