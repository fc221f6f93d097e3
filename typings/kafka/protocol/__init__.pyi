# Its message classes are looked up by name while running.
