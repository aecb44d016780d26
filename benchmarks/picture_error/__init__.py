"""What a precision changes in pictures."""
