"""The first floor: one door for each foreign thing."""
