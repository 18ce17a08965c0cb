"""What the services that do durable work share: database, workers' lives, logs, keys."""
