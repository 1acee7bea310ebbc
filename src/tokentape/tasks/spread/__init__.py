"""Work on large corpora, spread over the processes of a Ray cluster; what they find is the same as in one process."""
