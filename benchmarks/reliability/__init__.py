"""How much was tried, and did it hold? Random networks, damaged files, killed writers, many processes, precisions."""
