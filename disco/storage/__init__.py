"""Where the sectors of a virtual disk are kept. May import `disco.errors` only; knows no device."""
