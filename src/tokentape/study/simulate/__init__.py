"""What a continuous-batching server would do with a stream of requests, told without running one."""
