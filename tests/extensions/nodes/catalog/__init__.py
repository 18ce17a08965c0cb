"""The first nodes of the catalogue, each against an independent program."""
