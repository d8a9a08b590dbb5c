"""What a run looks like from outside: its report, and one TLB miss step by step.

Each has one source, a value of plain numbers and words, that both `--json` and the tables show. May import
`disco.monitor` and rich.
"""
