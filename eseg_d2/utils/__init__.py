"""What every subpackage uses: files, processes, checks of arguments, messages."""
