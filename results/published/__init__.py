"""Results published by others, as data, each row with its source."""
