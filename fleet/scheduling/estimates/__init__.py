"""What a request will cost on a server, in seconds, by what a proxy sees from outside. Chooses nothing."""
