# Its message classes are looked up by name while running.
__path__: list[str]
