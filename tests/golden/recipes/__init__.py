"""What each golden file holds and how it is made; see make.py."""
