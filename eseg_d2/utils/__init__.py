"""What every room uses: files, processes, checks of arguments, messages."""
