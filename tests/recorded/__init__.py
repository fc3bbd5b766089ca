"""What real engines said, and the script that asked them."""
