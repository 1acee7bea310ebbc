"""How four servers speak: the same answer in the form that each of them gives it."""
