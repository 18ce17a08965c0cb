"""What every hub-managed process shares, and how the hub is put together."""
