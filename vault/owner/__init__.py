"""The owner's command line. Nothing outside this package imports it."""
