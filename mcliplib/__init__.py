"""MobileCLIP to learn, run and extend."""
