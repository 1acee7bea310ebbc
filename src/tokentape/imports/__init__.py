"""Results of other tools become tapes."""
