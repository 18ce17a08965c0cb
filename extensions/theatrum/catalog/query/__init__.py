"""Questions to the catalogue: a value that says what is asked, and its SQL."""
