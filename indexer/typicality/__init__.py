"""How typical a query is of the catalogue: a percentile among held-out items, fitted when a generation is built."""
