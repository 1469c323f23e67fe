"""From a config to a record: the one place that knows models, data, engine and store."""
