"""The catalogue as a library."""
