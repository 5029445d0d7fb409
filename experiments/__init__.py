"""The experiments behind `RESULTS.md`: grids of runs, and the tables and figures made from their records."""
