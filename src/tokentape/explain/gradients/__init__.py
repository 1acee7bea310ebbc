"""How values change with token vectors, at a point and along a path."""
