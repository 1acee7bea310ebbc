"""Models in this process: found, loaded, described. torch is imported here and on the floors above, never below."""
