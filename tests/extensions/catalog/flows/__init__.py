"""Tests of the catalogue's flows."""
