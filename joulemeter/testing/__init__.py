"""What driver authors test with; public."""
