"""What layers would have said, and what each added to the residual stream."""
