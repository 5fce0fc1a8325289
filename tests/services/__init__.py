"""Real servers for the tests, on loopback and in temporary directories: started, asked for readiness, killed."""
