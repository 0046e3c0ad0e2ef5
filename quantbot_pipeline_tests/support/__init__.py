"""What tests build and compare with; each file is named after what it builds."""
