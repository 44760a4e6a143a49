"""Commands beside those of the Trainer, such as `python train.py study`: one file each.

A file that is laid into this folder is a command. Its docstring is the command's help, `add_arguments(parser)` declares the
arguments and `run(arguments)` does the work. Files are imported when their command is called, so they may need extras.
"""
