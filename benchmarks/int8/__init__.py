"""What int8 does to the networks' answers."""
