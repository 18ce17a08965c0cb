"""What durable services share: database, lives of workers, logs, keys."""
