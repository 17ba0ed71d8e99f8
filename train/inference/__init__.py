"""What a trained model is asked: prompts, answers, scores."""
