"""The page that is made of a tape: its document, and the file that holds it."""
