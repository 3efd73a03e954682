"""The unpacking child: hostile tars in, files in a folder and a list of them out.

A package of its own that imports the standard library and nothing else of Tatin, so that starting a child takes
milliseconds and what a hostile stream could reach in it is small.
"""
