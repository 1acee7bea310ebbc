"""A model behind an OpenAI-compatible endpoint, as a source of ticks."""
