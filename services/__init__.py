"""The hub-managed services; they share `hub` and call each other by HTTP."""
