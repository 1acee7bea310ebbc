"""Grammars: a text is of a language, or ends named as not whole."""
