"""What is wrong with the surroundings: each told in a sentence, nothing half started."""
