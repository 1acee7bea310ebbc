"""From ticks to a tape."""
