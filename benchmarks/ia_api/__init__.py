"""Load and chaos for the IA-API service; nothing here runs with the tests."""
