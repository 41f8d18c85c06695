"""Count: what a request's prompt counts and why, and how far counts lie from what the API reported."""
