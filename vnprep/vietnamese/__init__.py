"""Characters: what is done to text before it is tokenised."""
