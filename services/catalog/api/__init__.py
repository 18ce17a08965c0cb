"""The catalogue's REST interface: one router a resource."""
