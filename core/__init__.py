"""What every other package uses: errors shown to a user, and files that are whole or absent."""
