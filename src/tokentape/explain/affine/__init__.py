"""A model as the affine map that it is at one point, with its constants booked."""
