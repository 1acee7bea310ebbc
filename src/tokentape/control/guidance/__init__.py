"""Guidance: what changes what the model believes, before it is said what may be said."""
