"""As in the program."""
