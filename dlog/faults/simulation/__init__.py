"""The ports of the logger without a machine behind them: one thread, one seed, one history.

    steps = StorageSteps(Random(seed))             # numbers the storage steps of the whole run
    disk = SimulatedDisk(steps)
    store = JournalStore()
    steps.crash_at(17, When.DURING)
    try:
        ...                                        # the services on disk.directory("data")
    except SimulatedCrash:                         # and SimulatedJournal(steps, store)
        disk.crash(Random(seed))                   # left out, only the program died
        steps.restart()                            # now open directory and journal again

The services run on these as they do on the real ones; it never imports a service.
"""
