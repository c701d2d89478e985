"""dlog: the data logger that never loses an event it has acknowledged.

Two things are meant for import by users: `dlog.Source`, a Collector/Router's side of the event
link, and `dlog.read`, which iterates the events and blocks of event files.
"""
