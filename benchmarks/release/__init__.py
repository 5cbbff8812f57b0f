"""What a release ships: weights, the table of models, folders for the hub."""
