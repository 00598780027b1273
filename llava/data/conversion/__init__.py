"""What all conversions share: studies, cleaning, counts of what was left out, the output."""
