"""What counting costs: beside tiktoken alone, and a worker that is sent what is hard to count."""
