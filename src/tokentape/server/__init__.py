"""The page served on this machine, while a tape grows: who may ask, what is sent, and how a file is followed."""
