"""Sources: whatever can answer a request with ticks."""
