"""How fast the networks are, and how much memory they take, beside their peers."""
