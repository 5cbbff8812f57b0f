"""One script a question; results as CSV or JSON under `results/`, each with command, commit, hardware and versions."""
