"""A tape as the files of other tools: a timeline, spans, columns, spreadsheets.

The room is called ``exports`` because ``tokentape.export`` is the function: a package of that name would hide it.
"""
