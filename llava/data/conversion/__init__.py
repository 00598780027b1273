"""What all conversions share: studies, cleaning, the account of what was left out, the output."""
