"""Tests of the catalogue's engine."""
