"""The tests mirror the tree: one test file for each module."""
