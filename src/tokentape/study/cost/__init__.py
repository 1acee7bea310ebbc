"""What a model costs before it runs: its architecture in counts, machines, and the least time that both allow."""
