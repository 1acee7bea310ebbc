"""The law of latency: measured points, forms, what they miss, and predictions with intervals."""
