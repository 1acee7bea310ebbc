"""Guards: what a text must not contain, watched for while it grows."""
