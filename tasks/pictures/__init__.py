"""What a person looks at after a run: curves, and for each task what its model makes of the test data."""
