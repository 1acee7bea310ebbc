"""One catalogue of what is said to people, in English and Chinese."""
