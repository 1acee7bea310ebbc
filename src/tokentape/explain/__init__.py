"""What a tape cannot hold: where a step looked, and on which tokens it rested, found by playing the tape back."""
