"""What a person types: imports everything else, imported by none of it."""
