"""Measurements planned and carried out: which points, in which order, until when. May record, and may study what it recorded."""
