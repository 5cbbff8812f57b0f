"""What a release ships: weights rescaled and checked, the table of models, folders and cards for the hub."""
