"""Where rows looked, what was carried from there, and what that says of tokens."""
