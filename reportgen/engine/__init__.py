"""How passes run: needs are merged into passes, passes are run in batches, results go to the store."""
