"""What a language model is used for, measured: texts scored, and the jobs made of that."""
