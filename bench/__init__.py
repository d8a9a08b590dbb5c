"""How fast guests run, beside QEMU on the same work.

    command.py    the command line: chooses, alternates, shows, writes build/bench.json
    session.py    what is measured: sessions (a guest from start to end) and their rows
    kernels.py    sessions of our own small kernels (guests/*.S)
    debian.py     sessions of Debian: boots, work in its userland, many VMs
    work.py       the work of the userland, by class, with what the host gets
    programs/     our programs and data for it: C, Python, SQL, Verilog
    programs.py   builds the C for guests, in a VM, and for the host
    userland.py   Debian's packages, resolved by apt and unpacked for guests
    codegen.py    makes the C that is compiled
    circuit.py    what the simulated circuit does, in Python
    sides.py      who runs a session: Disco and QEMU, each a process that prints
    guest.py      the process that is Disco's side
    qemu.py       what QEMU needs that Disco does not: the program, a kernel for its board
    sources.py    our sources in assembly, with symbols
    figures.py    medians, ratios, goals and the record
    profile.py    where the host's time goes in a row, with perf
    table.py      tables for people
    plot.py       how wall time grows with the number of VMs

A new row is a `Work` in work.py, or a `Row` in a session of kernels.py or debian.py; nothing else has to
know of it.
"""
