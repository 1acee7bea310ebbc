"""A server on paper: OpenAI-compatible, on a schedule that is written down beforehand."""
