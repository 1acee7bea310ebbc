"""What a tape tells: small pure functions over recorded rows. Nothing here knows a model, and nothing imports torch."""
