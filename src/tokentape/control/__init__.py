"""Rules: what maps the model's logits to those that a token is chosen from."""
