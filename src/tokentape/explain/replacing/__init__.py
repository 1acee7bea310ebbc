"""What values become when tokens are replaced."""
