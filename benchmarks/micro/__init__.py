"""The native core beside pure Python and other libraries, function by function."""
