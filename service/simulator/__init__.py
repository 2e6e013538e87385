"""A fleet that does not exist: vehicles that charge, meters that bill, and the network between them and us.

    losses.py   measured losses of on-board chargers          vehicle.py  one charge, in closed form
    schedule.py who charges where and when                    fleet.py    readings at any moment
    network.py  drift, lost connections, repeats, disorder    mqtt.py, http.py  senders behind sender.py
    run.py      paces a fleet in real time                    seed.py     its sessions, into the database

What a fleet sends is a pure function of the seed, the device and the moment: two processes that simulate
the same fleet send the same readings, so that a run that is repeated gives duplicates and never conflicts.
"""
